import { setTimeout as sleep } from "node:timers/promises";
import { LRUCache } from "lru-cache";
import {
  countCalls,
  type CallToCount,
  type CountedCalls,
  type CountedWindow,
  type RateKind,
} from "../../db/rate-windows.ts";
import type { ShownEngine } from "../../db/shown-engines.ts";
import type { BaseContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import { SharedStatements } from "../shared-statements.ts";
import { RefusalPace } from "./refusal-pace.ts";
import { spreadRetry } from "../time/spread-retry.ts";

/** What one call has left of a limit, for the caller. */
export interface Rate {
  kind: RateKind;
  limit: number;
  /** Calls that the window still lets through after this one. */
  remaining: number;
  /** Until the window ends. */
  leftMs: number;
}

export interface LimitedCall extends CallToCount {
  productId: string;
  /** What is known of the limits; undefined: there is none. A window that was found full under another limit is asked for again. */
  limits: Readonly<Record<RateKind, number | undefined>>;
  /** Called with what is left, also before a refusal. */
  onRates?: ((rates: readonly Rate[]) => void) | undefined;
}

interface Counted {
  rates: readonly Rate[];
  /** undefined: every limit lets the call through. */
  refusedBy: Rate | undefined;
  engine: ShownEngine | undefined;
}

/** A window in which no call has room any more. */
interface FullWindow {
  limit: number;
  /** By the clock of this process, which only moves forward. */
  endsAtMs: number;
}

export const WINDOW_MS = 60_000;
/** Spreads the callers who wait for the same window's end. */
export const JITTER_MS = 5_000;
const MAX_FULL_WINDOWS = 10_000;

const NAMES: Readonly<Record<RateKind, { calls: string; field: string }>> = {
  requests: { calls: "calls", field: "rateLimitRpm" },
  turns: { calls: "started turns", field: "turnLimitRpm" },
};

/**
 * Counts the calls of products that have rate limits. The counts are in the database, so they are exact for all replicas
 * together. Calls of one product that arrive together share a statement, and it lets them through in their order.
 *
 * A full window is remembered until its end, so that a refused call costs no statement. The database would refuse it, too:
 * a window only gets fuller.
 */
export class RateLimits {
  readonly #counts: SharedStatements<CallToCount, Counted>;
  readonly #pace = new RefusalPace();
  readonly #full = new LRUCache<string, FullWindow>({ max: MAX_FULL_WINDOWS });

  constructor({ db }: Pick<BaseContext, "db">) {
    this.#counts = new SharedStatements(async (productId, calls) => {
      const sentAtMs = performance.now();
      const counted = await countCalls(db, productId, calls);
      this.#noteFull(productId, counted, sentAtMs);
      return toCounted(calls, counted);
    });
  }

  /**
   * Counts the call, and returns the engine that it asked for.
   *
   * @throws RATE_LIMITED, and every error of the database: a call that cannot be counted is not let through.
   */
  async count({ productId, limits, onRates, ...call }: LimitedCall): Promise<ShownEngine | undefined> {
    const full = this.#findFull(productId, { limits, ...call });
    const counted = full
      ? { rates: [full], refusedBy: full, engine: undefined }
      : await this.#counts.add(productId, call);
    onRates?.(counted.rates);
    if (counted.refusedBy === undefined) return counted.engine;
    const error = rateLimited(counted.refusedBy);
    const delayMs = this.#pace.take(productId, performance.now());
    if (delayMs > 0) await sleep(delayMs);
    throw error;
  }

  #findFull(productId: string, { limits, startsTurn }: CallToCount & Pick<LimitedCall, "limits">) {
    const now = performance.now();
    const find = (kind: RateKind): Rate | undefined => {
      const key = toKey(productId, kind);
      const full = this.#full.get(key);
      if (full === undefined) return undefined;
      if (full.limit !== limits[kind] || full.endsAtMs <= now) {
        this.#full.delete(key);
        return undefined;
      }
      return { kind, limit: full.limit, remaining: 0, leftMs: full.endsAtMs - now };
    };
    return find("requests") ?? (startsTurn ? find("turns") : undefined);
  }

  /** The window's end is reckoned from before the statement, so it is never remembered for too long. */
  #noteFull(productId: string, { windows }: CountedCalls, sentAtMs: number): void {
    for (const kind of ["requests", "turns"] as const) {
      const window = windows[kind];
      if (window === undefined || window.used < window.limit) continue;
      const endsAtMs = sentAtMs + toLeftMs(window);
      this.#full.set(toKey(productId, kind), { limit: window.limit, endsAtMs });
    }
  }
}

/** Hands the counts out to the calls in their order. */
export function toCounted(calls: readonly CallToCount[], { windows, engines }: CountedCalls): Counted[] {
  const requests = handOut("requests", windows.requests);
  const turns = handOut("turns", windows.turns);
  return calls.map(({ startsTurn }, index) => {
    const request = requests();
    if (request?.isRefused === true)
      return { rates: [request.rate], refusedBy: request.rate, engine: undefined };
    const turn = startsTurn ? turns() : undefined;
    const rates = [request, turn].flatMap((taken) => (taken === undefined ? [] : [taken.rate]));
    const refusedBy = turn?.isRefused === true ? turn.rate : undefined;
    return { rates, refusedBy, engine: engines[index] };
  });
}

function handOut(kind: RateKind, window: CountedWindow | undefined) {
  let handedOut = 0;
  return (): { rate: Rate; isRefused: boolean } | undefined => {
    if (window === undefined) return undefined;
    const { limit, taken, used } = window;
    const isRefused = handedOut >= taken;
    if (!isRefused) handedOut += 1;
    const remaining = Math.max(0, limit - (used - taken + handedOut));
    return { rate: { kind, limit, remaining, leftMs: toLeftMs(window) }, isRefused };
  };
}

function toKey(productId: string, kind: RateKind): string {
  return `${productId} ${kind}`;
}

/** A window that another statement began a moment later than this one would last longer than a window. */
function toLeftMs({ leftMs }: CountedWindow): number {
  return Math.min(Math.max(leftMs, 0), WINDOW_MS);
}

function rateLimited({ kind, limit, leftMs }: Rate): DomainError {
  const { calls, field } = NAMES[kind];
  const message =
    `the product has used its ${limit} ${calls} of this minute: ` +
    `wait for retryAfterMs, or ask an operator to raise ${field} in the product's policy`;
  const retryAfterMs = spreadRetry(leftMs, JITTER_MS);
  return new DomainError("RATE_LIMITED", message, { retryAfterMs });
}
