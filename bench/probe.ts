/*
 * Loaded before a program that is measured (`--import`): collects garbage and tells the memory that is left when it
 * is asked over the IPC channel, and ends the program when whoever measures is gone.
 */

/** What is in use after everything that can go is gone, in bytes. */
export interface Memory {
  rss: number;
  /** The heap of JavaScript and what it holds outside of itself, such as buffers. */
  heap: number;
}

process.on("message", () => {
  globalThis.gc?.();
  globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  process.send?.({ rss, heap: heapUsed + external } satisfies Memory);
});
process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
// A listener keeps the channel open, and the channel the process.
process.channel?.unref();
