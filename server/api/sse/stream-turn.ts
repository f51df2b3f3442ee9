import { tracked, type TrackedEnvelope } from "@trpc/server";
import { abortable } from "../../time/abortable.ts";
import type { CallContext } from "../../context.ts";
import type { AppContext } from "../../compose.ts";
import { Deadline } from "../../time/deadline.ts";
import { ReaderWake } from "../../turns/read/reader-wake.ts";
import { followTurn } from "../../turns/read/follow-turn.ts";
import type { TurnBatch } from "../../turns/read/turn-batch.ts";
import { CallerWatch } from "../http/caller-watch.ts";
import type { RequestContext } from "../trpc/request-context.ts";
import type { TurnItem } from "./turn-item.ts";

type StreamContext = Pick<RequestContext, "reauthenticate" | "closing"> & {
  call: AppContext & CallContext;
  productId: string;
};

const FIRST_EVENT_PATIENCE_MS = 50;

interface StreamInput {
  turnId: string;
  /**
   * Starts the turn, while the head of the stream is on its way already. The first item tells the reader that it has
   * begun: an event that comes soon, else one without any.
   */
  begin?: (() => Promise<unknown>) | undefined;
  lastEventId?: string | undefined;
  signal: AbortSignal | undefined;
}

/**
 * A turn from the reader's cursor to its end. A key that is revoked meanwhile is an end, too: the reader is told
 * so and does not come back. A server that closes just stops, and the reader comes back to the next one.
 */
export async function* streamTurn(
  ctx: StreamContext,
  input: StreamInput,
): AsyncGenerator<TrackedEnvelope<TurnItem>, void, undefined> {
  const { turnId } = input;
  let lastSeq = Number(input.lastEventId ?? 0);
  const watch = new CallerWatch(ctx, input.signal);
  try {
    if (input.begin) {
      await abortable(input.begin(), watch.signal);
      if (!(await hasEventSoon(ctx, turnId))) yield tracked(String(lastSeq), { turnId, events: [] });
    }
    const place = { productId: ctx.productId, turnId, afterSeq: lastSeq, signal: watch.signal };
    for await (const { lastSeq: seq, ...batch } of followTurn(ctx.call, place)) {
      lastSeq = seq;
      yield tracked(String(seq), { turnId, ...batch });
      if (batch.end) return;
    }
  } catch (error) {
    // The watch cuts the read short; whatever that looks like from inside, what the watch saw is the reason.
    if (!watch.signal.aborted) throw error;
  } finally {
    watch[Symbol.dispose]();
  }
  if (watch.refused)
    yield tracked(String(lastSeq), { turnId, events: [], end: toRefusedEnd(watch, lastSeq) });
  else throw new DOMException("the stream goes on elsewhere", "AbortError");
}

async function hasEventSoon(ctx: StreamContext, turnId: string): Promise<boolean> {
  const turn = ctx.call.turns.find(ctx.productId, turnId);
  if (turn === undefined) return false;
  if (turn.lastSeq > 0) return true;
  using patience = new Deadline(FIRST_EVENT_PATIENCE_MS);
  using reader = new ReaderWake(patience.signal);
  reader.join(turn);
  while (turn.lastSeq === 0 && !patience.hasPassed) await reader.next();
  return turn.lastSeq > 0;
}

function toRefusedEnd(watch: CallerWatch, lastSeq: number): NonNullable<TurnBatch["end"]> {
  return {
    status: "interrupted",
    reason: "KEY_REVOKED",
    message: watch.refused ?? null,
    engineError: null,
    lastSeq,
    engineMayContinue: true,
  };
}
