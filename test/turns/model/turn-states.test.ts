import { describe, expect, test } from "vitest";
import { TurnProgress } from "../../../server/turns/model/turn-progress.ts";
import {
  applyMove,
  OVER_STATES,
  TURN_MOVES,
  TURN_STATES,
  TURN_WAITS,
  type TurnMove,
  type TurnState,
  type TurnWait,
} from "../../../server/turns/model/turn-states.ts";

const MOVES = Object.keys(TURN_MOVES) as TurnMove[];
const WAITS = Object.keys(TURN_WAITS) as TurnWait[];
const includes = (states: readonly TurnState[], state: TurnState) => states.includes(state);
const REFUSAL = new Error("refused");

/** One way into each state. */
const WAY: Record<TurnState, TurnMove[]> = {
  opening: [],
  acquiring: ["findNew"],
  starting: ["findNew", "record"],
  attaching: ["takeOver"],
  streaming: ["findNew", "record", "stream"],
  leaving: ["takeOver", "leave"],
  left: ["takeOver", "leave", "handOver"],
  ending: ["findNew", "record", "stream", "end"],
  ended: ["findNew", "record", "stream", "end", "commit"],
  lost: ["findNew", "record", "lose"],
  refused: ["findNew", "refuse"],
};

function progressIn(state: TurnState): TurnProgress {
  const progress = new TurnProgress();
  for (const move of WAY[state]) make(progress, move);
  expect(progress.state).toBe(state);
  return progress;
}

function make(progress: TurnProgress, move: TurnMove): void {
  if (move === "refuse") progress.refuse(REFUSAL);
  else progress.move(move);
}

/** What a wait has come to after all pending microtasks. */
async function outcomeOf(waiting: Promise<void>): Promise<unknown> {
  const ended = waiting.then(
    () => "resolved",
    (error: unknown) => error,
  );
  return Promise.race([ended, new Promise((resolve) => void setImmediate(() => resolve("waiting")))]);
}

function expectedOutcome(wait: TurnWait, state: TurnState): unknown {
  if (includes(TURN_WAITS[wait], state)) return "waiting";
  return state === "refused" && wait !== "over" ? REFUSAL : "resolved";
}

describe.each(TURN_STATES)("in the state %s", (state) => {
  test.each(MOVES)("the move %s leads where the table says, is ignored when over, or is a defect", (move) => {
    const progress = progressIn(state);
    const { from, to } = TURN_MOVES[move];
    if (includes(from, state)) {
      expect(applyMove(state, move)).toBe(to);
      make(progress, move);
      expect(progress.state).toBe(to);
    } else if (includes(OVER_STATES, state)) {
      expect(applyMove(state, move)).toBe(state);
      make(progress, move);
      expect(progress.state).toBe(state);
    } else {
      expect(() => applyMove(state, move)).toThrow(state);
      expect(() => make(progress, move)).toThrow(state);
      expect(progress.state).toBe(state);
    }
  });

  test.each(WAITS)(
    "a wait for %s that begins now waits, resolves or throws as the table says",
    async (wait) => {
      expect(await outcomeOf(progressIn(state).until(wait))).toBe(expectedOutcome(wait, state));
    },
  );

  test.each(MOVES.filter((move) => includes(TURN_MOVES[move].from, state)))(
    "the move %s ends the waits that the table says, and no other",
    async (move) => {
      const progress = progressIn(state);
      const pending = WAITS.filter((wait) => includes(TURN_WAITS[wait], state));
      const waits = pending.map((wait) => ({ wait, waiting: progress.until(wait) }));
      make(progress, move);
      for (const { wait, waiting } of waits) {
        expect(await outcomeOf(waiting)).toBe(expectedOutcome(wait, TURN_MOVES[move].to));
      }
    },
  );
});

test("every state but the first is reached by a move, and only states that are over have no way on", () => {
  const reached = new Set<TurnState>(MOVES.map((move) => TURN_MOVES[move].to));
  expect(TURN_STATES.filter((state) => !reached.has(state))).toEqual(["opening"]);
  const left = new Set<TurnState>(MOVES.flatMap((move) => [...TURN_MOVES[move].from]));
  expect(TURN_STATES.filter((state) => !left.has(state))).toEqual([...OVER_STATES]);
});

test("a wait keeps the outcome of the move that ended it, whatever moves follow at once", async () => {
  const progress = new TurnProgress();
  const isNew = progress.until("new");
  const recorded = progress.until("recorded");
  progress.move("findNew");
  progress.refuse(REFUSAL);
  expect(await outcomeOf(isNew)).toBe("resolved");
  expect(await outcomeOf(recorded)).toBe(REFUSAL);
});

describe("the answer to the callers of start", () => {
  test.each([
    ["without an error", undefined, "resolved"],
    ["with an error", REFUSAL, REFUSAL],
  ])("%s ends their wait, and a later answer changes nothing", async (_how, error, outcome) => {
    const progress = progressIn("starting");
    const early = progress.untilAnswered();
    expect(progress.isAnswered).toBe(false);
    progress.answer(error);
    progress.answer(new Error("late"));
    expect(progress.isAnswered).toBe(true);
    expect(await outcomeOf(early)).toBe(outcome);
    expect(await outcomeOf(progress.untilAnswered())).toBe(outcome);
    expect(progress.state).toBe("starting");
  });

  test("is the refusal when the turn is refused", async () => {
    expect(await outcomeOf(progressIn("refused").untilAnswered())).toBe(REFUSAL);
    expect(await outcomeOf(progressIn("streaming").untilAnswered())).toBe("waiting");
  });
});
