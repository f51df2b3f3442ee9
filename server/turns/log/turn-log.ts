import { appendToTurnLog, isPartitionMissing } from "../../../db/turn-events.ts";
import { ensureTurnPartitionAt } from "../../../db/turn-partitions.ts";
import { isDatabaseUnavailable } from "../../../db/postgres-error.ts";
import type { BaseContext } from "../../context.ts";
import { toErrorMessage } from "../../errors.ts";
import { chooseFairly } from "./choose-fairly.ts";
import type { Flush, LiveTurn } from "../model/live-turn.ts";

export interface TurnLogOptions extends Pick<BaseContext, "raw" | "clock" | "log"> {
  replicaId: string;
}

const COMMIT_SPACING_MS = 50;
const AGE_PER_BUSY_TURN_MS = 0.25;
/** One commit takes turns until they have this much; the rest goes with the next. */
const COMMIT_MAX_BYTES = 8 * 1024 * 1024;
const RETRY_MAX_MS = 1_000;

/**
 * Writes what the turns of this process have, all that are due in one statement, one statement at a time.
 *
 *   turn has something new ─▶ dirty ─▶ due (age, size, end) ─▶ commit ─▶ 50 ms ─▶ …
 *                               ▲────────── failed: again, the same and more ──┘
 *
 * While the database is away everything stays where it is; the turns' own bounds stop their engines.
 */
export class TurnLog {
  readonly #options: TurnLogOptions;
  readonly #dirty = new Set<LiveTurn>();
  /** Turns whose commit failed for a reason of their own: they are written one by one. */
  readonly #suspects = new WeakSet<LiveTurn>();
  readonly #done: Promise<void>;
  #nap: AbortController | undefined;
  #napUntil = 0;
  #idle: PromiseWithResolvers<void> | undefined;
  #failures = 0;
  #isClosing = false;
  #isGivenUp = false;

  constructor(options: TurnLogOptions) {
    this.#options = options;
    this.#done = this.#run();
  }

  /** To be called when a turn got something to write; it is cheap to call for each piece. */
  touch(turn: LiveTurn): void {
    if (turn.isSettled) return;
    this.#dirty.add(turn);
    this.#idle?.resolve();
    if (this.#nap && turn.dueAt(this.#maxAgeMs) < this.#napUntil) this.#nap.abort();
  }

  /** Writes all that there is and stops; gives up after `deadlineMs`. */
  async close(deadlineMs: number): Promise<void> {
    this.#isClosing = true;
    this.#nap?.abort();
    this.#idle?.resolve();
    const deadline = new AbortController();
    const late = this.#options.clock.sleep(deadlineMs, deadline.signal).catch(() => {
      // Done in time.
    });
    await Promise.race([this.#done, late]);
    deadline.abort();
    this.#isGivenUp = true;
    this.#nap?.abort();
    if (this.#dirty.size > 0) {
      this.#options.log.error({ turns: this.#dirty.size }, "turns could not be written before the end");
    }
  }

  async #run(): Promise<void> {
    for (;;) {
      if (this.#isGivenUp || (this.#isClosing && this.#dirty.size === 0)) return;
      if (this.#dirty.size === 0) {
        this.#idle = Promise.withResolvers();
        await this.#idle.promise;
        this.#idle = undefined;
        continue;
      }
      const waitMs = this.#isClosing ? 0 : this.#nextDueAt() - this.#options.clock.now();
      if (waitMs > 0) await this.#rest(waitMs);
      else await this.#commitDue();
    }
  }

  async #commitDue(): Promise<void> {
    const batches = this.#takeBatches();
    let hasFailed = false;
    for (const batch of batches) hasFailed = !(await this.#commit(batch)) || hasFailed;
    this.#failures = hasFailed ? this.#failures + 1 : 0;
    const spacingMs = hasFailed
      ? Math.min(RETRY_MAX_MS, COMMIT_SPACING_MS * 2 ** Math.min(this.#failures, 10))
      : COMMIT_SPACING_MS;
    // Nothing cuts this short but giving up: the spacing is what keeps the cost of many turns down.
    if (!this.#isClosing || hasFailed) await this.#options.clock.sleep(spacingMs);
  }

  /** Resolves after a while, or earlier when a turn became urgent. */
  async #rest(ms: number): Promise<void> {
    this.#nap = new AbortController();
    this.#napUntil = this.#options.clock.now() + ms;
    await this.#options.clock.sleep(ms, this.#nap.signal).catch(() => {
      // Cut short on purpose.
    });
    this.#nap = undefined;
  }

  get #maxAgeMs(): number {
    return Math.max(COMMIT_SPACING_MS, AGE_PER_BUSY_TURN_MS * this.#dirty.size);
  }

  #nextDueAt(): number {
    let next = Infinity;
    for (const turn of this.#dirty) next = Math.min(next, turn.dueAt(this.#maxAgeMs));
    return next;
  }

  /** What is due and has its turn, as one batch and one more for each suspect. */
  #takeBatches(): Flush[][] {
    const now = this.#options.clock.now();
    const maxAgeMs = this.#maxAgeMs;
    const common: Flush[] = [];
    const alone: Flush[][] = [];
    const due = [...this.#dirty].filter((turn) => this.#isClosing || turn.dueAt(maxAgeMs) <= now);
    for (const turn of chooseFairly(due, COMMIT_MAX_BYTES)) {
      if (this.#suspects.has(turn)) alone.push([turn.takeFlush()]);
      else common.push(turn.takeFlush());
    }
    return common.length > 0 ? [common, ...alone] : alone;
  }

  async #commit(batch: Flush[], isRepaired = false): Promise<boolean> {
    try {
      const owned = await this.#append(batch);
      batch.forEach((flush, index) => this.#markWritten(flush, owned.has(index)));
      return true;
    } catch (error) {
      if (!isPartitionMissing(error) || isRepaired) return this.#recover(batch, error);
      return (await this.#ensurePartitions(batch)) && this.#commit(batch, true);
    }
  }

  async #append(batch: Flush[]): Promise<Set<number>> {
    const appends = batch.map((flush) => ({
      productId: flush.turn.productId,
      turnId: flush.turn.turnId,
      fencingToken: flush.turn.fencingToken,
      lastSeq: flush.lastSeq,
      reservedSeq: flush.reservedSeq,
      bytes: flush.bytes,
      status: flush.status,
      end: flush.end && JSON.stringify(flush.end),
      chunks: flush.chunks,
    }));
    return appendToTurnLog(this.#options.raw, this.#options.replicaId, appends);
  }

  #markWritten(flush: Flush, isOurs: boolean): void {
    const { turn } = flush;
    if (isOurs) turn.markWritten(flush, this.#options.clock.now());
    else {
      this.#options.log.warn(
        { turnId: turn.turnId },
        "the turn has another owner or is gone; reading it stops",
      );
      turn.markLost();
    }
    // What it has got since is behind everybody else's.
    this.#dirty.delete(turn);
    if (turn.isDirty) this.#dirty.add(turn);
  }

  async #recover(batch: Flush[], error: unknown): Promise<boolean> {
    if (isDatabaseUnavailable(error) || batch.length === 1) return this.#fail(error);
    this.#options.log.error(
      { turns: batch.length, error: toErrorMessage(error) },
      "a commit failed; trying each turn by itself",
    );
    let isWritten = true;
    for (const flush of batch) {
      if (await this.#commit([flush])) continue;
      isWritten = false;
      this.#suspects.add(flush.turn);
    }
    return isWritten;
  }

  async #ensurePartitions(batch: Flush[]): Promise<boolean> {
    try {
      for (const { turn } of batch) {
        if (turn.record) await ensureTurnPartitionAt(this.#options.raw, turn.record.startedAt);
      }
      return true;
    } catch (error) {
      return this.#fail(error);
    }
  }

  #fail(error: unknown): false {
    this.#options.log.warn(
      { error: toErrorMessage(error), attempt: this.#failures + 1 },
      "turns are not written yet",
    );
    return false;
  }
}
