import type { TurnKey, TurnRow } from "../../db/turns.ts";
import type { Config } from "../config/config.ts";
import type { BaseContext } from "../context.ts";
import type { HeldEngine, AcquireEngineInput } from "../engines/access/acquire-engine.ts";
import type { EngineConnections } from "../engine-contract/connections.ts";
import { DomainError } from "../errors.ts";
import type { Replica } from "../replicas/replica.ts";
import { LingeringHolds } from "./upstream/lingering-holds.ts";
import { LiveTurn, type LiveTurnInput } from "./model/live-turn.ts";
import { toEndCause } from "./model/turn-end.ts";
import { TurnLog } from "./log/turn-log.ts";

/** What the functions of this folder ask for. */
export type TurnContext = Pick<BaseContext, "raw" | "clock" | "log"> & { turns: TurnRegistry };

export interface TurnRegistryOptions extends Pick<BaseContext, "raw" | "clock" | "log"> {
  replica: Pick<Replica, "id" | "holdsLease">;
  connections: EngineConnections;
  config: Pick<Config, "eventMaxBytes" | "turnMaxBytes" | "turnIdleTimeoutMs" | "turnRetentionMs">;
  acquireEngine: (input: AcquireEngineInput) => Promise<HeldEngine>;
  /** Looks at the engine's process now; undefined when there is no such engine any more. */
  refreshEngine: (engineId: string) => Promise<{ generation: number; status: string } | undefined>;
  timing?: Partial<TurnTiming>;
}

/** How long things may take, in milliseconds. */
export interface TurnTiming {
  /** Start answers `starting` when the engine has not answered by then. */
  startAnswerMs: number;
  /** An answer that is no stream may take this long to its end, once it has begun. */
  errorBodyMs: number;
  /** An engine that said its last word gets this long to close the stream. */
  lastWordMs: number;
  /** A stream that broke is asked about for this long: the daemon needs a moment to see that a process died. */
  brokenMs: number;
  /** How often a lingering hold looks whether the engine's process is still the same. */
  lingerCheckMs: number;
  /** How long the last commits may take at shutdown. */
  closeMs: number;
}

const TIMING: TurnTiming = {
  startAnswerMs: 10_000,
  errorBodyMs: 5_000,
  lastWordMs: 1_000,
  brokenMs: 2_000,
  lingerCheckMs: 5_000,
  closeMs: 10_000,
};

/** Memory for what is not written yet, shared by all turns of the process while the database is away. */
const UNWRITTEN_TOTAL_BYTES = 64 * 1024 * 1024;
const UNWRITTEN_MAX_BYTES = 1024 * 1024;
const UNWRITTEN_MIN_BYTES = 64 * 1024;

/** The turns that this process owns, and the log that they are written to. */
export class TurnRegistry implements AsyncDisposable {
  readonly options: TurnRegistryOptions;
  readonly timing: TurnTiming;
  readonly log: TurnLog;
  readonly lingering: LingeringHolds;
  readonly #turns = new Map<string, LiveTurn>();
  readonly #handOver = new AbortController();
  #lastFence = 0;
  #isoMs = -1;
  #iso = "";
  #isDraining = false;
  #isClosed = false;

  constructor(options: TurnRegistryOptions) {
    this.options = options;
    this.timing = { ...TIMING, ...options.timing };
    this.log = new TurnLog({ ...options, replicaId: options.replica.id });
    this.lingering = new LingeringHolds(options, this.timing);
  }

  get size(): number {
    return this.#turns.size;
  }
  /** True once nothing is written any more. */
  get isClosed(): boolean {
    return this.#isClosed;
  }
  /** What one turn may have unwritten before its engine has to wait. */
  get unwrittenLimit(): number {
    const share = UNWRITTEN_TOTAL_BYTES / Math.max(this.#turns.size, 1);
    return Math.min(UNWRITTEN_MAX_BYTES, Math.max(UNWRITTEN_MIN_BYTES, share));
  }

  find(productId: string, turnId: string): LiveTurn | undefined {
    return this.#turns.get(toKey(productId, turnId));
  }

  /** The turn that this process drives under a row; undefined when the row is another's, or a failed start left it. */
  findOwn(row: TurnKey & Pick<TurnRow, "ownerReplica" | "fencingToken">): LiveTurn | undefined {
    if (row.ownerReplica !== this.options.replica.id) return undefined;
    const turn = this.find(row.productId, row.turnId);
    return turn?.fencingToken === row.fencingToken ? turn : undefined;
  }

  /** An instant as ISO text, written once per millisecond for all turns. */
  toIso(nowMs: number): string {
    if (nowMs !== this.#isoMs) {
      this.#isoMs = nowMs;
      this.#iso = new Date(nowMs).toISOString();
    }
    return this.#iso;
  }

  /** Makes a turn known before anything is done for it, so that two starts of one id meet. Throws DRAINING. */
  open(input: Omit<LiveTurnInput, "fencingToken">): LiveTurn {
    if (this.#isDraining) throw draining();
    // Larger than any before in this process and, by the clock, than those of processes before it.
    this.#lastFence = Math.max(this.#lastFence + 1, this.options.clock.now() * 1_000);
    const turn = new LiveTurn({ ...input, fencingToken: this.#lastFence });
    this.#turns.set(toKey(turn.productId, turn.turnId), turn);
    return turn;
  }

  /** Forgets a turn that is settled or never began. */
  remove(turn: LiveTurn): void {
    const key = toKey(turn.productId, turn.turnId);
    if (this.#turns.get(key) === turn) this.#turns.delete(key);
  }

  /** From now on every read of a live turn throws an AbortError, and its client resumes elsewhere. */
  handOver(): void {
    this.#handOver.abort(new DOMException("this replica hands its readers over", "AbortError"));
    for (const turn of this.#turns.values()) turn.announce();
  }

  throwIfHandedOver(): void {
    this.#handOver.signal.throwIfAborted();
  }

  /** From now on a new turn is refused with DRAINING; one that is there can still be joined. */
  refuseNew(): void {
    this.#isDraining = true;
  }

  /**
   * Refuses new turns, waits up to `ms` for those under way, or until `hurry` aborts, ends the rest, and returns when
   * all is written.
   */
  async drain(ms: number, hurry?: AbortSignal): Promise<void> {
    this.refuseNew();
    await this.#untilEmpty(ms, hurry);
    for (const turn of this.#turns.values()) {
      turn.stop(toEndCause("interrupted", "DRAINING", { message: "the orchestrator is shutting down" }));
    }
    await this.#untilEmpty(this.timing.closeMs);
    this.lingering.close();
    await this.log.close(this.timing.closeMs);
    this.#isClosed = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.handOver();
    await this.drain(0);
  }

  async #untilEmpty(ms: number, hurry?: AbortSignal): Promise<void> {
    const patience = new AbortController();
    const signal = hurry ? AbortSignal.any([patience.signal, hurry]) : patience.signal;
    const settled = Promise.all([...this.#turns.values()].map((turn) => turn.untilSettled()));
    const timeout = this.options.clock.sleep(ms, signal).catch(() => {
      // Everything settled first, or there is a hurry.
    });
    await Promise.race([settled, timeout]);
    patience.abort();
  }
}

function draining(): DomainError {
  return new DomainError("DRAINING", "this replica is shutting down; another one will take the turn", {
    retryAfterMs: 1_000,
  });
}

/** Callers may write a UUID in either case; Postgres compares them as one. */
function toKey(productId: string, turnId: string): string {
  return `${productId}/${turnId}`.toLowerCase();
}
