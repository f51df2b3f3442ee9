import { EnginehouseError } from "./enginehouse-error.ts";
import { toDelayMs } from "./retry-options.ts";
import { sleep } from "./sleep.ts";
import type { Transport } from "./transport.ts";
import type { TurnGap, TurnItem } from "./turn-event.ts";
import {
  readOpenedTurn,
  readTurnConnection,
  type OpenedTurn,
  type SequencedItem,
  type TurnPlace,
} from "./turn-stream.ts";

/**
 * A turn from the place on to its end, over as many connections and replicas as that takes. Each event comes once
 * and in order. Returns after the end; throws a refusal that waiting does not mend, CONNECTION_LOST when nothing
 * came for too long, and what the signal says when it aborts.
 */
export async function* followTurn(
  transport: Transport,
  place: TurnPlace & { opened?: OpenedTurn | undefined },
  signal: AbortSignal,
): AsyncGenerator<SequencedItem, void> {
  const { retry, replicas } = transport;
  const progress: Progress = { ...place, failures: 0, isEnded: false };
  let failingSince = 0;
  for (;;) {
    const url = replicas.current;
    let setback: EnginehouseError | undefined;
    try {
      yield* readOn(transport, progress, signal);
      if (progress.isEnded) return;
    } catch (error) {
      if (!(error instanceof EnginehouseError && error.isTransient)) throw error;
      setback = error;
      replicas.leave(url);
    }
    setback ??= new EnginehouseError("CONNECTION_LOST", "the stream stopped before the turn's end");
    const { failures } = progress;
    const now = performance.now();
    if (failures === 0) failingSince = now;
    else if (now - failingSince > retry.streamForMs) throw toGivenUp(setback);
    const { retryAfterMs } = setback;
    // After progress the stream is looked for at once: a replica that shuts down hands its readers over like this.
    if (failures > 0) {
      await sleep(toDelayMs(retry, { failures, replicas: replicas.count, retryAfterMs }), signal);
    }
    progress.failures += 1;
  }
}

interface Progress extends TurnPlace {
  /** The first connection, when there is one already. */
  opened?: OpenedTurn | undefined;
  /** Connections in a row that brought nothing. */
  failures: number;
  isEnded: boolean;
}

async function* readOn(
  transport: Transport,
  progress: Progress,
  signal: AbortSignal,
): AsyncGenerator<SequencedItem, void> {
  const { opened } = progress;
  progress.opened = undefined;
  const connection = opened
    ? readOpenedTurn(opened, signal)
    : readTurnConnection(transport, progress, signal);
  for await (const received of connection) {
    progress.failures = 0;
    const fresh = received === "alive" ? undefined : dropSeen(received, progress.afterSeq);
    if (fresh === undefined) continue;
    progress.afterSeq = fresh.lastSeq;
    yield fresh;
    progress.isEnded = fresh.item.end !== undefined;
    if (progress.isEnded) return;
  }
}

/** Without what the reader has already; undefined when nothing is left. */
function dropSeen({ lastSeq, item }: SequencedItem, afterSeq: number): SequencedItem | undefined {
  const events = item.events.filter((event) => event.seq > afterSeq);
  const gap = item.gap && isNews(item.gap, afterSeq) ? item.gap : undefined;
  if (events.length === 0 && gap === undefined && item.end === undefined) return undefined;
  const firstSeq = events[0]?.seq;
  const expectedSeq = (gap?.toSeq ?? afterSeq) + 1;
  if (firstSeq !== undefined && firstSeq !== expectedSeq) {
    throw new EnginehouseError("CONNECTION_LOST", `event ${firstSeq} came where ${expectedSeq} was expected`);
  }
  const fresh: TurnItem = { turnId: item.turnId, events };
  if (gap) fresh.gap = gap;
  if (item.end) fresh.end = item.end;
  return { lastSeq, item: fresh };
}

/** A cursor that the server does not know is behind what it says about it. */
function isNews(gap: TurnGap, afterSeq: number): boolean {
  return gap.toSeq > afterSeq || gap.reason === "unknown_cursor";
}

function toGivenUp(setback: EnginehouseError): EnginehouseError {
  return setback.reason === "CONNECTION_LOST"
    ? new EnginehouseError("CONNECTION_LOST", `the stream was given up: ${setback.message}`, {
        cause: setback,
      })
    : setback;
}
