/** How long things may take, in milliseconds. */
export interface TurnTiming {
  /** Start answers `starting` when the engine has not answered by then. */
  startAnswerMs: number;
  /** The body of an answer that is no event stream gets this long after its head. */
  errorBodyMs: number;
  /** After its terminal event an engine gets this long to close the stream. */
  closeStreamMs: number;
  /** How long an engine may take to answer that it has ended a cancelled turn. */
  cancelMs: number;
  /** After a broken stream, observe the engine for this long: the runtime sees a dead process later than we do. */
  brokenMs: number;
  /** How long to try to attach to a turn of a dead owner: its engine's runtime may not answer yet. */
  attachMs: number;
  /** The same after the connection to an engine broke. */
  reattachMs: number;
  /** How long to observe an engine before it is asked for a replay. */
  observeMs: number;
  /** How long an engine may take to answer the request for a replay. */
  replayAnswerMs: number;
  /** How often a lingering hold checks whether the engine's process is still the same. */
  lingerCheckMs: number;
  /** How long the last commits may take at shutdown. */
  closeMs: number;
}

export const TURN_TIMING: TurnTiming = {
  startAnswerMs: 10_000,
  errorBodyMs: 5_000,
  closeStreamMs: 1_000,
  cancelMs: 5_000,
  brokenMs: 2_000,
  attachMs: 60_000,
  reattachMs: 10_000,
  observeMs: 10_000,
  replayAnswerMs: 5_000,
  lingerCheckMs: 5_000,
  closeMs: 10_000,
};
