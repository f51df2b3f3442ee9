import type { TurnKey, TurnRow } from "../../db/turns.ts";
import { DomainError } from "../errors.ts";
import type { Replica } from "../replicas/replica.ts";
import type { Clock } from "../time/clock.ts";
import { LiveTurn, type LiveTurnInput } from "./model/live-turn.ts";

/** Memory for what is not written yet. All turns of the process share it while the database is away. */
const UNWRITTEN_TOTAL_BYTES = 64 * 1024 * 1024;
const UNWRITTEN_MAX_BYTES = 1024 * 1024;
const UNWRITTEN_MIN_BYTES = 64 * 1024;

export interface TurnRegistryOptions {
  clock: Clock;
  replica: Pick<Replica, "id">;
}

/** The live turns of this replica: those that it starts or owns. */
export class TurnRegistry {
  readonly #options: TurnRegistryOptions;
  readonly #turns = new Map<string, LiveTurn>();
  /** Turns that were left to their next owner. Their readers are still to be handed over. */
  readonly #left = new Set<LiveTurn>();
  readonly #handOver = new AbortController();
  /** By product: how many of its turns wait for their engine. */
  readonly #waiting = new Map<string, number>();
  #lastFencingToken = 0;
  #isDraining = false;
  #isClosed = false;

  constructor(options: TurnRegistryOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#turns.size;
  }
  /** True once this replica writes no turn any more. */
  get isClosed(): boolean {
    return this.#isClosed;
  }
  /** When one turn has more bytes unwritten than this, its engine has to wait. */
  get unwrittenLimit(): number {
    const share = UNWRITTEN_TOTAL_BYTES / Math.max(this.#turns.size, 1);
    return Math.min(UNWRITTEN_MAX_BYTES, Math.max(UNWRITTEN_MIN_BYTES, share));
  }

  find(productId: string, turnId: string): LiveTurn | undefined {
    return this.#turns.get(toKey(productId, turnId));
  }

  /** The live turn that wrote this row. undefined: the row is another replica's, or a failed start left it. */
  findOwn(row: TurnKey & Pick<TurnRow, "ownerReplica" | "fencingToken">): LiveTurn | undefined {
    if (row.ownerReplica !== this.#options.replica.id) return undefined;
    const turn = this.find(row.productId, row.turnId);
    return turn?.input.fencingToken === row.fencingToken ? turn : undefined;
  }

  /** The live turn of a task. A start of the task that has no row yet does not count. */
  findTask(task: Pick<TurnRow, "productId" | "userId" | "taskId">): LiveTurn | undefined {
    for (const turn of this.#turns.values()) {
      const { productId, userId, taskId } = turn.input;
      const isSame = taskId === task.taskId && userId === task.userId && productId === task.productId;
      if (isSame && turn.record !== undefined) return turn;
    }
    return undefined;
  }

  list(): LiveTurn[] {
    return [...this.#turns.values()];
  }

  /** Adds a turn before anything else is done for it, so that two starts of one id meet here. Throws DRAINING. */
  open(input: Omit<LiveTurnInput, "fencingToken">): LiveTurn {
    if (this.#isDraining) throw draining();
    // Larger than every token of this process and, by the clock, than those of earlier processes.
    this.#lastFencingToken = Math.max(this.#lastFencingToken + 1, this.#options.clock.now() * 1_000);
    const turn = new LiveTurn({ ...input, fencingToken: this.#lastFencingToken });
    this.#turns.set(toKey(turn.input.productId, turn.input.turnId), turn);
    return turn;
  }

  /**
   * Takes one of the product's `max` places for turns that wait for their engine. Such a turn has no row, so the database
   * does not count it. undefined: all places are taken.
   */
  beginWait(productId: string, max: number): Disposable | undefined {
    const waiting = this.#waiting.get(productId) ?? 0;
    if (waiting >= max) return undefined;
    this.#waiting.set(productId, waiting + 1);
    return { [Symbol.dispose]: () => this.#endWait(productId) };
  }

  #endWait(productId: string): void {
    const waiting = (this.#waiting.get(productId) ?? 0) - 1;
    if (waiting > 0) this.#waiting.set(productId, waiting);
    else this.#waiting.delete(productId);
  }

  /** Adds a turn whose row was a dead owner's, and names this replica now. */
  takeOver(input: LiveTurnInput): LiveTurn {
    const { productId, turnId, userId, taskId, fingerprint, startedBy, fencingToken } = input;
    const turn = new LiveTurn({ productId, turnId, userId, taskId, fingerprint, startedBy, fencingToken });
    this.#turns.set(toKey(productId, turnId), turn);
    return turn;
  }

  /** Call this when the turn is left to its next owner. Its readers wait until they are handed over. */
  leave(turn: LiveTurn): void {
    this.remove(turn);
    this.#left.add(turn);
  }

  /** Call this when the turn is over. A later turn of the same id stays. */
  remove(turn: LiveTurn): void {
    const key = toKey(turn.input.productId, turn.input.turnId);
    if (this.#turns.get(key) === turn) this.#turns.delete(key);
  }

  /** From now on every read of a turn throws an AbortError, so that its client resumes at another replica. */
  handOver(): void {
    this.#handOver.abort(new DOMException("this replica hands its readers over", "AbortError"));
    for (const turn of [...this.#turns.values(), ...this.#left]) turn.announce();
    this.#left.clear();
  }

  get isHandedOver(): boolean {
    return this.#handOver.signal.aborted;
  }

  throwIfHandedOver(): void {
    this.#handOver.signal.throwIfAborted();
  }

  /** From now on new turns are refused with DRAINING. Live turns can still be joined. */
  refuseNew(): void {
    this.#isDraining = true;
  }

  close(): void {
    this.#isClosed = true;
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
