import { recordCall, type AuditAppends } from "../audit/append-audit.ts";
import { SYSTEM_ACTOR } from "../audit/audit-entry.ts";
import type { Actor } from "../actor.ts";
import type { BaseContext } from "../context.ts";
import { toErrorMessage, type DeniedKey, type Reason } from "../errors.ts";
import type { Caller } from "../keys/caller.ts";

/** The refusals that say: this caller may not do this now. */
const DENIAL_REASONS: ReadonlySet<Reason> = new Set<Reason>([
  "INVALID_KEY",
  "KEY_EXPIRED",
  "KEY_REVOKED",
  "SCOPE_MISSING",
  "IMAGE_NOT_ALLOWED",
  "QUOTA_EXCEEDED",
  "RATE_LIMITED",
  "STREAM_LIMIT",
]);

/** Bounds the memory, and the rows of a minute. Further keys are counted together, one row for each reason. */
const MAX_KINDS = 1_000;
const CLOSE_MS = 2_000;
/** The chain of denials that belong to no product. */
const PLATFORM_SCOPE = "platform";

export interface Denial {
  reason: Reason;
  /** The caller whose key was accepted. */
  caller: Caller | undefined;
  /** The key that was refused, if the database has it. */
  deniedKey: DeniedKey | undefined;
  procedure: string | null;
  requestId: string;
}

interface Counted {
  scope: string;
  actor: Actor;
  count: number;
  firstAt: number;
  lastAt: number;
  last: Denial;
}

type DenialsContext = Pick<BaseContext, "clock" | "log"> & { auditAppends: AuditAppends };

/**
 * Counts refused calls by product, key and reason. `write` makes one audit row of each count. So a flood of refused calls
 * costs an addition for each call, and its rows are bounded by the number of keys, not of calls.
 */
export class Denials {
  readonly #ctx: DenialsContext;
  #counts = new Map<string, Counted>();

  constructor(ctx: DenialsContext) {
    this.#ctx = ctx;
  }

  note(denial: Denial): void {
    if (!DENIAL_REASONS.has(denial.reason)) return;
    const { scope, actor } = toSubject(denial);
    const now = this.#ctx.clock.now();
    const counted = this.#find({ scope, actor, reason: denial.reason });
    if (counted.count === 0) counted.firstAt = now;
    counted.count += 1;
    counted.lastAt = now;
    counted.last = denial;
  }

  #find({ scope, actor, reason }: { scope: string; actor: Actor; reason: Reason }): Counted {
    const name = `${scope} ${actor.id} ${reason}`;
    const known = this.#counts.get(name);
    if (known !== undefined) return known;
    if (this.#counts.size >= MAX_KINDS && actor !== UNKNOWN_CALLER) {
      return this.#find({ scope: PLATFORM_SCOPE, actor: UNKNOWN_CALLER, reason });
    }
    const made = { scope, actor, count: 0, firstAt: 0, lastAt: 0, last: NO_DENIAL };
    this.#counts.set(name, made);
    return made;
  }

  /** Writes what was counted since the last time. What cannot be written now is counted on. */
  async write(signal?: AbortSignal): Promise<void> {
    const counts = this.#counts;
    this.#counts = new Map();
    for (const counted of counts.values()) {
      try {
        signal?.throwIfAborted();
        await recordCall(this.#ctx, toEntry(counted));
      } catch (error) {
        this.#putBack(counted);
        this.#ctx.log.debug({ error: toErrorMessage(error) }, "denials were not recorded");
      }
    }
  }

  #putBack(counted: Counted): void {
    const since = this.#find({ ...counted, reason: counted.last.reason });
    if (since.count === 0) Object.assign(since, { lastAt: counted.lastAt, last: counted.last });
    since.count += counted.count;
    since.firstAt = counted.firstAt;
  }

  /** Writes once more, unless the database does not answer. */
  async close(): Promise<void> {
    const over = new AbortController();
    const late = this.#ctx.clock.sleep(CLOSE_MS, over.signal).catch(() => undefined);
    await Promise.race([this.write(over.signal), late]);
    over.abort();
  }
}

const UNKNOWN_CALLER: Actor = { ...SYSTEM_ACTOR, id: "admission", name: "admission" };
const NO_DENIAL: Denial = {
  reason: "INVALID_KEY",
  caller: undefined,
  deniedKey: undefined,
  procedure: null,
  requestId: "",
};

function toSubject({ caller, deniedKey }: Denial): { scope: string; actor: Actor } {
  if (caller?.kind === "platform_key") return { scope: caller.productId, actor: caller.actor };
  if (caller !== undefined) return { scope: PLATFORM_SCOPE, actor: caller.actor };
  if (deniedKey !== undefined)
    return { scope: deniedKey.productId ?? PLATFORM_SCOPE, actor: deniedKey.actor };
  return { scope: PLATFORM_SCOPE, actor: UNKNOWN_CALLER };
}

function toEntry({ scope, actor, count, firstAt, lastAt, last }: Counted) {
  const { reason, procedure, requestId } = last;
  const [first, latest] = [firstAt, lastAt].map((ms) => new Date(ms).toISOString());
  const metadata = { reason, count, firstAt: first, lastAt: latest, procedure };
  return { scope, actor, action: "admission.denied" as const, requestId, metadata };
}
