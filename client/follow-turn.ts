import { EnginehouseError } from "./enginehouse-error.ts";
import { toDelayMs } from "./retry-options.ts";
import { sleep } from "./sleep.ts";
import type { Transport } from "./transport.ts";
import {
  readOpenedTurn,
  readTurnConnection,
  type OpenedTurn,
  type SequencedBatch,
  type TurnCursor,
} from "./turn-connection.ts";
import type { TurnBatch, TurnGap } from "./turn-event.ts";

/**
 * Reads a turn from the cursor to its end, over as many connections and replicas as necessary. Each event arrives once
 * and in order. Returns after the end.
 *
 * Throws a refusal that a retry cannot change, the last failure when nothing arrived for `retry.streamForMs`, and the
 * signal's reason when it aborts.
 */
export async function* followTurn(
  transport: Transport,
  cursor: TurnCursor & { opened?: OpenedTurn | undefined },
  signal: AbortSignal,
): AsyncGenerator<SequencedBatch, void> {
  const { retry, replicas } = transport;
  const progress: Progress = { ...cursor, failures: 0, hasEnded: false };
  let failingSince = 0;
  for (;;) {
    const url = replicas.current;
    let setback: EnginehouseError | undefined;
    try {
      yield* readOneConnection(transport, progress, signal);
      if (progress.hasEnded) return;
    } catch (error) {
      if (!(error instanceof EnginehouseError) || !mayPass(error)) throw error;
      setback = error;
      replicas.leave(url);
    }
    setback ??= new EnginehouseError("CONNECTION_LOST", "the stream stopped before the turn's end");
    const { failures } = progress;
    const now = performance.now();
    const { retryAfterMs } = setback;
    // After progress there is no pause: a replica that drains hands its readers over by ending their streams.
    if (failures === 0) failingSince = now;
    else {
      const delayMs = toDelayMs(retry, { failures, replicas: replicas.count, retryAfterMs });
      if (now + delayMs - failingSince > retry.streamForMs) throw toGivenUp(setback);
      await sleep(delayMs, signal);
    }
    progress.failures += 1;
  }
}

interface Progress extends TurnCursor {
  /** The connection that started the turn, until it is read. */
  opened?: OpenedTurn | undefined;
  /** How many connections in a row have brought nothing. */
  failures: number;
  hasEnded: boolean;
}

async function* readOneConnection(
  transport: Transport,
  progress: Progress,
  signal: AbortSignal,
): AsyncGenerator<SequencedBatch, void> {
  const { opened } = progress;
  progress.opened = undefined;
  const connection = opened
    ? readOpenedTurn(transport, opened, signal)
    : readTurnConnection(transport, progress, signal);
  for await (const received of connection) {
    progress.failures = 0;
    const fresh = received === "alive" ? undefined : dropKnown(received, progress.afterSeq);
    if (fresh === undefined) continue;
    progress.afterSeq = fresh.lastSeq;
    yield fresh;
    progress.hasEnded = fresh.batch.end !== undefined;
    if (progress.hasEnded) return;
  }
}

/** The batch without the events that the reader has. undefined: nothing is left of it. */
function dropKnown({ lastSeq, batch, text }: SequencedBatch, afterSeq: number): SequencedBatch | undefined {
  const events = batch.events.filter((event) => event.seq > afterSeq);
  const gap = batch.gap && isNew(batch.gap, afterSeq) ? batch.gap : undefined;
  if (events.length === 0 && gap === undefined && batch.end === undefined) return undefined;
  const firstSeq = events[0]?.seq;
  const expectedSeq = (gap?.toSeq ?? afterSeq) + 1;
  if (firstSeq !== undefined && firstSeq !== expectedSeq) {
    const message = `event ${firstSeq} arrived instead of event ${expectedSeq}`;
    throw new EnginehouseError("CONNECTION_LOST", message);
  }
  const fresh: TurnBatch = { turnId: batch.turnId, events };
  if (gap) fresh.gap = gap;
  if (batch.end) fresh.end = batch.end;
  return { lastSeq, batch: fresh, text };
}

/** If the server does not know the cursor, the gap it reports ends before the cursor. */
function isNew(gap: TurnGap, afterSeq: number): boolean {
  return gap.toSeq > afterSeq || gap.reason === "unknown_cursor";
}

/**
 * A replica has answered before. So a page of a gateway, or an internal error, may be gone at the next attempt, which
 * only reads.
 */
function mayPass({ isTransient, reason }: EnginehouseError): boolean {
  return isTransient || reason === "UNEXPECTED_ANSWER" || reason === "INTERNAL";
}

function toGivenUp(setback: EnginehouseError): EnginehouseError {
  if (setback.reason !== "CONNECTION_LOST") return setback;
  const message = `the turn's stream could not be resumed: ${setback.message}`;
  return new EnginehouseError("CONNECTION_LOST", message, { cause: setback });
}
