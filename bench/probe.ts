/*
 * Loaded with `--import` before a program under test. On an IPC message it collects garbage and sends the memory that is
 * still in use. When the benchmark has exited, it ends the program.
 */

/** Memory in use after a garbage collection, in bytes. */
export interface Memory {
  rss: number;
  /** The JavaScript heap and the memory outside it that it owns, such as buffers. */
  heap: number;
}

process.on("message", () => {
  globalThis.gc?.();
  globalThis.gc?.();
  const { rss, heapUsed, external } = process.memoryUsage();
  process.send?.({ rss, heap: heapUsed + external } satisfies Memory);
});
process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
// The listener keeps the channel open, and an open channel would keep the process running.
process.channel?.unref();
