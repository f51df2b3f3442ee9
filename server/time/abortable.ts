/** Waits for the promise; rejects with the signal's reason if it aborts first. The work continues. Leaves no listener. */
export async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  if (signal.aborted) {
    promise.catch(() => {
      // The caller has stopped waiting, so a later rejection must not count as unhandled.
    });
    throw signal.reason;
  }
  const aborted = Promise.withResolvers<never>();
  const onAbort = () => {
    aborted.reject(signal.reason);
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** True for the error of an aborted wait, also if the signal had no reason of its own. */
export function isAbortError(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
