import { DomainError, type Reason } from "../errors.ts";
import type { RequestContext } from "./request-context.ts";

/** Ends a stream when its caller leaves, the server closes, or the key is not good any more. */
export interface CallerWatch extends Disposable {
  readonly signal: AbortSignal;
  /** Why the key is refused; undefined while it is good or the signal aborted for another reason. */
  readonly refused: string | undefined;
}

const KEY_REFUSALS: ReadonlySet<Reason> = new Set(["INVALID_KEY", "KEY_EXPIRED", "KEY_REVOKED"]);
/** Twice within the second in which a revoked key's streams must end, look-ups being cached for half of one. */
const RECHECK_MS = 400;

/** Asks about the key anew every now and then. While nobody can answer, the stream goes on. */
export function watchCaller(
  ctx: Pick<RequestContext, "reauthenticate" | "closing">,
  left: AbortSignal | undefined,
): CallerWatch {
  const ended = new AbortController();
  let refused: string | undefined;
  let isAsking = false;

  const end = () => ended.abort(new DOMException("the stream has ended", "AbortError"));
  const recheck = async () => {
    if (isAsking) return;
    isAsking = true;
    try {
      await ctx.reauthenticate();
    } catch (error) {
      if (!(error instanceof DomainError && KEY_REFUSALS.has(error.reason)) || ended.signal.aborted) return;
      refused = error.message;
      end();
    } finally {
      isAsking = false;
    }
  };
  const timer = setInterval(() => void recheck(), RECHECK_MS);
  const signals = [ctx.closing, ...(left ? [left] : [])];
  for (const signal of signals) {
    if (signal.aborted) end();
    else signal.addEventListener("abort", end, { once: true });
  }
  return {
    signal: ended.signal,
    get refused() {
      return refused;
    },
    [Symbol.dispose]: () => {
      clearInterval(timer);
      for (const signal of signals) signal.removeEventListener("abort", end);
    },
  };
}
