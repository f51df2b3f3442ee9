import { abortable } from "./abortable.ts";

/** Resolves after `ms`; rejects with the signal's reason if it aborts first. */
export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const slept = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  const waiting = signal ? abortable(slept, signal) : slept;
  await waiting.finally(() => clearTimeout(timer));
}
