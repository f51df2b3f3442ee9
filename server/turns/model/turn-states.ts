/**
 * The life of a turn on the replica that owns it, as data. `TurnProgress` makes every move by this table. The test
 * walks every state × move cell of it.
 *
 *   opening ─ findNew ─▶ acquiring ─ record ─▶ starting ─ stream ─▶ streaming ─ end ─▶ ending ─ commit ─▶ ended
 *                                                  └──────────────── end ────────────────▲
 *   opening ─ takeOver ─▶ attaching ─ stream ─▶ streaming          leave ─▶ leaving ─ handOver ─▶ left
 *   refuse, from every state before `ended` ─▶ refused            lose, once recorded ─▶ lost
 */
export const TURN_STATES = [
  /** The database has not answered yet whether the turn's id is new. */
  "opening",
  /** The id is new. The turn has no engine yet. */
  "acquiring",
  /** The row is written, and the request is on its way. Only the call itself knows whether it has left. */
  "starting",
  /** The turn was a dead owner's. It is ours now, and its engine has not answered yet. */
  "attaching",
  /** The engine accepted the request, or the request for a replay. */
  "streaming",
  /** This replica drains and reads the engine no more. The events that it has are not all committed. */
  "leaving",
  /** The end is decided, and not committed. */
  "ending",
  /** The end is committed. */
  "ended",
  /** All events are committed. The turn goes on at its next owner. */
  "left",
  /** Another replica owns or has ended the turn. From now on only the log is right. */
  "lost",
  /** The turn did not begin. */
  "refused",
] as const;
export type TurnState = (typeof TURN_STATES)[number];

export const TURN_MOVES = {
  /** The database has no turn of this id. A start that waited for its engine checks again. */
  findNew: { from: ["opening", "acquiring"], to: "acquiring" },
  /** The row is written. */
  record: { from: ["acquiring"], to: "starting" },
  /** The row was a dead owner's, and names this replica now. */
  takeOver: { from: ["opening"], to: "attaching" },
  stream: { from: ["starting", "attaching"], to: "streaming" },
  end: { from: ["starting", "attaching", "streaming", "leaving"], to: "ending" },
  commit: { from: ["ending"], to: "ended" },
  leave: { from: ["attaching", "streaming"], to: "leaving" },
  handOver: { from: ["leaving"], to: "left" },
  lose: { from: ["starting", "attaching", "streaming", "leaving", "ending"], to: "lost" },
  /** A start that failed. After `starting` only a defect of ours leads here. */
  refuse: {
    from: ["opening", "acquiring", "starting", "attaching", "streaming", "leaving", "ending"],
    to: "refused",
  },
} as const satisfies Record<string, { from: readonly TurnState[]; to: TurnState }>;
export type TurnMove = keyof typeof TURN_MOVES;

/** A turn that is over ignores every move: what the log or the engine's stream reports may come late. */
export const OVER_STATES = ["ended", "left", "lost", "refused"] as const satisfies readonly TurnState[];

/**
 * A wait goes on in these states. In all others it is over; a wait for `new` or `recorded` then throws the refusal if
 * the turn was refused.
 */
export const TURN_WAITS = {
  new: ["opening"],
  recorded: ["opening", "acquiring"],
  over: ["opening", "acquiring", "starting", "attaching", "streaming", "leaving", "ending"],
} as const satisfies Record<string, readonly TurnState[]>;
export type TurnWait = keyof typeof TURN_WAITS;

export function isOver(state: TurnState): boolean {
  return includes(OVER_STATES, state);
}

export function isWaiting(wait: TurnWait, state: TurnState): boolean {
  return includes(TURN_WAITS[wait], state);
}

/** The state after the move. Throws when the table has no such move: that is a defect of ours. */
export function applyMove(state: TurnState, move: TurnMove): TurnState {
  const { from, to } = TURN_MOVES[move];
  if (includes(from, state)) return to;
  if (isOver(state)) return state;
  throw new Error(`a turn in the state "${state}" cannot make the move "${move}"`);
}

function includes(states: readonly TurnState[], state: TurnState): boolean {
  return states.includes(state);
}
