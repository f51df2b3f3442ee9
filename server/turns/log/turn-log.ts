import { appendToTurnLog, isPartitionMissing, type ProductLog } from "../../../db/turn-events.ts";
import { ensureTurnPartitionAt } from "../../../db/turn-partitions.ts";
import { isDatabaseUnavailable } from "../../../db/postgres-error.ts";
import type { Config } from "../../config/config.ts";
import { toErrorMessage } from "../../errors.ts";
import type { LiveTurn, TurnCommit } from "../model/live-turn.ts";
import { toEndCause, type EndCause } from "../model/turn-end.ts";
import type { TurnContext } from "../turn-context.ts";
import { chooseFairly } from "./choose-fairly.ts";

interface TurnLogOptions extends Pick<TurnContext, "raw" | "clock" | "log" | "replica" | "seals"> {
  config: Pick<Config, "turnLogBytesPerHour">;
}

const COMMIT_SPACING_MS = 50;
const AGE_PER_BUSY_TURN_MS = 0.25;
/** One commit takes turns until they have this much to write. The rest waits for the next commit. */
const COMMIT_MAX_BYTES = 8 * 1024 * 1024;
const RETRY_MAX_MS = 1_000;

/**
 * The group commit: one statement writes for all due turns of this replica, one statement at a time.
 *
 *   turn has something new ─▶ dirty ─▶ due (age, size, end) ─▶ commit ─▶ 50 ms ─▶ …
 *                               ▲───── failed: the same events and more ──┘
 *
 * While the database is away the turns keep their events, and their own limits make their engines wait.
 *
 * Each commit counts the bytes of its products in this hour. Beyond the limit, a turn that writes ends with LOG_LIMIT.
 */
export class TurnLog {
  readonly #options: TurnLogOptions;
  readonly #dirty = new Set<LiveTurn>();
  /** Turns whose own data made a commit fail. Each is committed alone. */
  readonly #suspects = new WeakSet<LiveTurn>();
  readonly #done: Promise<void>;
  /** Aborts the sleep until the next turn is due. */
  #sleeping: AbortController | undefined;
  #sleepUntil = 0;
  #idle: PromiseWithResolvers<void> | undefined;
  #failures = 0;
  #isClosing = false;
  #isGivenUp = false;

  constructor(options: TurnLogOptions) {
    this.#options = options;
    this.#done = this.#run();
  }

  /** Call this when a turn got something to write. It is cheap enough to call for each chunk. */
  touch(turn: LiveTurn): void {
    if (turn.isOver) return;
    this.#dirty.add(turn);
    this.#idle?.resolve();
    if (this.#sleeping && turn.dueAt(this.#maxAgeMs) < this.#sleepUntil) this.#sleeping.abort();
  }

  /** Commits everything and stops. Gives up after `deadlineMs`. */
  async close(deadlineMs: number): Promise<void> {
    this.#isClosing = true;
    this.#sleeping?.abort();
    this.#idle?.resolve();
    const deadline = new AbortController();
    const late = this.#options.clock.sleep(deadlineMs, deadline.signal).catch(() => {
      // All was committed in time.
    });
    await Promise.race([this.#done, late]);
    deadline.abort();
    this.#isGivenUp = true;
    this.#sleeping?.abort();
    if (this.#dirty.size > 0) {
      this.#options.log.error(
        { turns: this.#dirty.size },
        "turns could not be committed before the process ends",
      );
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
      if (waitMs > 0) await this.#sleep(waitMs);
      else await this.#commitDue();
    }
  }

  async #commitDue(): Promise<void> {
    const batches = this.#takeBatches();
    let hasFailed = false;
    for (const batch of batches) hasFailed = !(await this.#commit(batch)) || hasFailed;
    if (this.#failures > 0 && !hasFailed) await this.#options.seals.keepKeys();
    this.#failures = hasFailed ? this.#failures + 1 : 0;
    const spacingMs = hasFailed
      ? Math.min(RETRY_MAX_MS, COMMIT_SPACING_MS * 2 ** Math.min(this.#failures, 10))
      : COMMIT_SPACING_MS;
    // No urgent turn cuts this short: the spacing limits the cost of many turns.
    if (!this.#isClosing || hasFailed) await this.#options.clock.sleep(spacingMs);
  }

  /** Resolves after `ms`, or earlier when a turn is due earlier. */
  async #sleep(ms: number): Promise<void> {
    this.#sleeping = new AbortController();
    this.#sleepUntil = this.#options.clock.now() + ms;
    await this.#options.clock.sleep(ms, this.#sleeping.signal).catch(() => {
      // A turn is due earlier, or the log closes.
    });
    this.#sleeping = undefined;
  }

  get #maxAgeMs(): number {
    return Math.max(COMMIT_SPACING_MS, AGE_PER_BUSY_TURN_MS * this.#dirty.size);
  }

  #nextDueAt(): number {
    let next = Infinity;
    for (const turn of this.#dirty) next = Math.min(next, turn.dueAt(this.#maxAgeMs));
    return next;
  }

  /** The due turns that fit, as one batch for all and one for each suspect. */
  #takeBatches(): TurnCommit[][] {
    const now = this.#options.clock.now();
    const maxAgeMs = this.#maxAgeMs;
    const common: TurnCommit[] = [];
    const alone: TurnCommit[][] = [];
    const due = [...this.#dirty].filter((turn) => this.#isClosing || turn.dueAt(maxAgeMs) <= now);
    for (const turn of chooseFairly(due, COMMIT_MAX_BYTES)) {
      if (this.#suspects.has(turn)) alone.push([turn.toCommit()]);
      else common.push(turn.toCommit());
    }
    return common.length > 0 ? [common, ...alone] : alone;
  }

  async #commit(batch: TurnCommit[], isRepaired = false): Promise<boolean> {
    try {
      const { raw, replica, seals, config } = this.#options;
      const { turnLogBytesPerHour: logBytesPerHour } = config;
      const options = { ownerReplica: replica.id, logBytesPerHour };
      const owned = await appendToTurnLog(raw, options, await seals.seal(batch));
      batch.forEach((commit, index) => this.#markCommitted(commit, owned.get(index)));
      return true;
    } catch (error) {
      if (!isPartitionMissing(error) || isRepaired) return this.#recover(batch, error);
      return (await this.#ensurePartitions(batch)) && this.#commit(batch, true);
    }
  }

  /** `productLog` undefined: the turn is not ours. */
  #markCommitted(commit: TurnCommit, productLog: ProductLog | undefined): void {
    const { turn } = commit;
    if (productLog !== undefined) {
      turn.markCommitted(commit, this.#options.clock.now());
      const { bytes, maxBytes } = productLog;
      if (bytes > maxBytes && commit.chunks.length > 0) turn.stop(toLogLimit(maxBytes));
    } else {
      this.#options.log.warn(
        { turnId: turn.input.turnId },
        "the turn has another owner or is gone; reading it stops",
      );
      turn.markLost();
    }
    // New events of this turn wait behind those of all other turns.
    this.#dirty.delete(turn);
    if (turn.isDirty) this.#dirty.add(turn);
  }

  async #recover(batch: TurnCommit[], error: unknown): Promise<boolean> {
    if (isDatabaseUnavailable(error) || batch.length === 1) return this.#fail(error);
    this.#options.log.error(
      { turns: batch.length, error: toErrorMessage(error) },
      "a commit failed; committing each turn alone",
    );
    let isCommitted = true;
    for (const commit of batch) {
      if (await this.#commit([commit])) continue;
      isCommitted = false;
      this.#suspects.add(commit.turn);
    }
    return isCommitted;
  }

  async #ensurePartitions(batch: TurnCommit[]): Promise<boolean> {
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
      "a commit to the turn log failed; it will be repeated",
    );
    return false;
  }
}

function toLogLimit(maxBytes: number): EndCause {
  return toEndCause("failed", "LOG_LIMIT", {
    message: `the events of this product's turns have reached ${maxBytes} bytes in this hour`,
  });
}
