import { applyMove, isOver, isWaiting, type TurnMove, type TurnState, type TurnWait } from "./turn-states.ts";

/** How a wait ended: with an error, or well if that is undefined. */
interface Outcome {
  readonly error: unknown;
}
interface Waiter {
  find: () => Outcome | undefined;
  resolve: (outcome: Outcome) => void;
}
const DONE: Outcome = { error: undefined };

/**
 * The state of a live turn, and the callers that wait for a state. A promise exists only while a caller waits, so most of
 * the time a turn has none.
 *
 * Whether the callers of start were answered is not part of the state: a slow engine leaves the turn in `starting` or
 * `ending` after its callers were answered.
 */
export class TurnProgress {
  #state: TurnState = "opening";
  #refusal: unknown;
  #startAnswer: Outcome | undefined;
  #waiters: Waiter[] | undefined;

  get state(): TurnState {
    return this.#state;
  }
  get isOver(): boolean {
    return isOver(this.#state);
  }
  get isAnswered(): boolean {
    return this.#startAnswer !== undefined;
  }

  /** False: the state did not change, for example because the turn is over. Throws when the table has no such move. */
  move(move: TurnMove): boolean {
    const next = applyMove(this.#state, move);
    if (next === this.#state) return false;
    this.#state = next;
    this.#wake();
    return true;
  }

  refuse(error: unknown): void {
    if (!this.isOver) this.#refusal = error;
    this.move("refuse");
    this.answer(error);
  }

  /** Ends `untilAnswered`, with an error if there is one. Only the first answer counts. */
  answer(error?: unknown): void {
    if (this.#startAnswer !== undefined) return;
    this.#startAnswer = { error };
    this.#wake();
  }

  async until(wait: TurnWait): Promise<void> {
    await this.#untilFound(() => {
      if (isWaiting(wait, this.#state)) return undefined;
      return this.#state === "refused" && wait !== "over" ? { error: this.#refusal } : DONE;
    });
  }

  async untilAnswered(): Promise<void> {
    await this.#untilFound(() => this.#startAnswer);
  }

  /** Takes the outcome at the move that brings it: a later move does not change what a caller gets. */
  async #untilFound(find: () => Outcome | undefined): Promise<void> {
    const outcome =
      find() ??
      (await new Promise<Outcome>((resolve) => {
        (this.#waiters ??= []).push({ find, resolve });
      }));
    if (outcome.error !== undefined) throw outcome.error;
  }

  #wake(): void {
    // A caller that goes on waiting stays in the list.
    this.#waiters = this.#waiters?.filter(({ find, resolve }) => {
      const outcome = find();
      if (outcome) resolve(outcome);
      return outcome === undefined;
    });
  }
}
