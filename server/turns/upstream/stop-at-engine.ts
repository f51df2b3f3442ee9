import { cancelTask, type CancelAnswer } from "../../engine-contract/cancel.ts";
import type { CallTarget } from "../../engine-contract/post-json.ts";
import { toErrorMessage } from "../../errors.ts";
import type { LiveTurn } from "../model/live-turn.ts";
import { CANCELLED_BY_ENGINE, type EndCause, type EndReason } from "../model/turn-end.ts";
import type { RunContext } from "./run-context.ts";

/** After these ends, no replica reads what the engine still does. So the engine is asked to end its turn too. */
const ENDED_AT_ENGINE: readonly EndReason[] = [
  "CANCELLED",
  "ENGINE_TIMEOUT",
  "EVENT_TOO_LARGE",
  "TURN_TOO_LARGE",
  "LOG_LIMIT",
];

const CANCELLED_MESSAGES: Readonly<Record<Exclude<CancelAnswer, "cancelled">, string>> = {
  no_turn:
    "the turn was cancelled; the engine says that it had no turn of this task to end, and left its stream open",
  unsupported:
    "the turn was cancelled; its engine may continue, because it does not support POST /execute/cancel",
  unknown:
    "the turn was cancelled; its engine may continue, because it did not confirm that it ended the turn",
};

type StopContext = Pick<RunContext, "connections" | "log" | "replica" | "turnTiming">;

/** Asks the engine of one turn to end the turn, at most once. */
export class StopAtEngine {
  readonly #ctx: StopContext;
  readonly #turn: LiveTurn;
  readonly #engine: CallTarget;
  #answer: Promise<CancelAnswer> | undefined;

  constructor(ctx: StopContext, { turn, held }: { turn: LiveTurn; held: CallTarget }) {
    this.#ctx = ctx;
    this.#turn = turn;
    this.#engine = held;
  }

  /** For a turn whose request was sent. Takes a bounded time. */
  async ask(): Promise<CancelAnswer> {
    return (this.#answer ??= this.#ask());
  }

  /**
   * The end to record. If our cause leaves the engine at work, asks the engine to end its turn first. `isStreamOver`: the
   * engine has ended its stream properly, so it is done in any case.
   */
  async endAtEngine(cause: EndCause, { isStreamOver = false } = {}): Promise<EndCause> {
    const { reason, engineMayContinue } = cause;
    if (!engineMayContinue || reason === null || !ENDED_AT_ENGINE.includes(reason)) return cause;
    const answer = await this.ask();
    const isDone = isStreamOver || answer === "cancelled";
    if (reason !== "CANCELLED") return { ...cause, engineMayContinue: !isDone };
    return isDone ? CANCELLED_BY_ENGINE : { ...cause, message: CANCELLED_MESSAGES[answer] };
  }

  async #ask(): Promise<CancelAnswer> {
    // Without the lease, a turn of this task may belong to another replica by now.
    if (!this.#ctx.replica.holdsLease()) return "unknown";
    const { taskId, turnId } = this.#turn.input;
    const timeoutMs = this.#ctx.turnTiming.cancelMs;
    try {
      return await cancelTask(this.#ctx.connections, this.#engine, { taskId, timeoutMs });
    } catch (error) {
      // A defect of ours. The turn still has to end.
      this.#ctx.log.error(
        { turnId, error: toErrorMessage(error) },
        "a turn could not be ended at its engine",
      );
      return "unknown";
    }
  }
}
