import type { LiveTurn } from "../model/live-turn.ts";
import type { EndCause } from "../model/turn-end.ts";
import {
  attachToReplay,
  untilAttached,
  type Attachment,
  type OpenStream,
  type Reading,
} from "./attach-to-replay.ts";
import { explainClose, type StreamClose } from "./explain-close.ts";
import type { RunContext } from "./run-context.ts";
import type { UpstreamOutcome } from "./upstream-reader.ts";

export type ReadingEnd =
  | { kind: "ended"; cause: EndCause }
  /** The turn was stopped, is lost, or is left to its next owner. */
  | { kind: "stopped" };

/** A connection that breaks is replaced, until so many in a row have brought no event. */
const MAX_VAIN_STREAMS = 5;

/**
 * Reads a turn to its end. If the connection breaks and the engine numbers its events, the engine's replay takes the
 * place of the stream. `toUnreadable` makes the end of a turn whose replay is not usable.
 */
export async function readToEnd(
  ctx: RunContext,
  reading: Reading,
  first: { stream: OpenStream; toUnreadable: (why: string) => EndCause },
): Promise<ReadingEnd> {
  const { turn, watchdog } = reading;
  let { stream, toUnreadable } = first;
  let vainStreams = 0;
  for (;;) {
    const before = turn.receivedSeq;
    const outcome = await readStream(ctx, reading, stream);
    if (outcome.kind === "unordered") return { kind: "ended", cause: toUnreadable(outcome.why) };
    if (outcome.kind !== "closed") return outcome;
    // A closed stream is silent, so silence must not count any more.
    watchdog.pause();
    const cause = await explainClose(ctx, turn, outcome);
    if (outcome.isClean && cause === turn.stopCause) {
      return { kind: "ended", cause: await reading.stop.endAtEngine(cause, { isStreamOver: true }) };
    }
    vainStreams = turn.receivedSeq > before ? 0 : vainStreams + 1;
    if (vainStreams > MAX_VAIN_STREAMS || !isBroken(turn, outcome, cause)) return { kind: "ended", cause };
    const attachment = await reattach(ctx, reading);
    if (attachment.kind === "stopped") return attachment;
    if (attachment.kind !== "attached") return { kind: "ended", cause };
    stream = attachment.stream;
    toUnreadable = () => cause;
  }
}

/** Whether only the connection is at fault, and the engine can send the rest again. */
function isBroken(turn: LiveTurn, close: StreamClose, cause: EndCause): boolean {
  return !close.isClean && cause.reason === "ENGINE_CLOSED" && turn.lastEventId !== undefined;
}

async function reattach(ctx: RunContext, reading: Reading): Promise<Attachment> {
  const untilMs = ctx.clock.now() + ctx.turnTiming.reattachMs;
  const attempt = async () => attachToReplay(ctx, reading);
  return untilAttached(ctx, reading.turn, { untilMs, attempt });
}

async function readStream(
  ctx: RunContext,
  { turn, stop }: Reading,
  stream: OpenStream,
): Promise<UpstreamOutcome> {
  const reader = stream.sink;
  try {
    return await reader.untilOver(async () => stop.ask());
  } finally {
    stream.close();
    if (reader.droppedEvents > 0) {
      const fields = { turnId: turn.input.turnId, events: reader.droppedEvents };
      ctx.log.warn(fields, "events after the terminal event were dropped");
    }
    if (!reader.hasStarted) {
      const fields = { turnId: turn.input.turnId, engineId: turn.record?.engineId };
      ctx.log.warn(fields, 'an engine\'s stream did not begin with thread_lifecycle and "phase": "started"');
    }
  }
}
