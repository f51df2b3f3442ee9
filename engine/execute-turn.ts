import { randomUUID } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { EngineContext } from "./engine-context.ts";
import { EngineError, toErrorEnvelope, TurnCancelled } from "./engine-error.ts";
import type { EngineEvent } from "./engine-event.ts";
import { recordEvent } from "./event-log.ts";
import type { JsonObject } from "./json-object.ts";
import { logLine } from "./log-line.ts";
import { openTurn, type Turn } from "./open-turn.ts";
import { playTurn, type PlayedTurn } from "./play-turn.ts";
import { SseWriter } from "./sse-writer.ts";
import { addMessage, setWorkingMemory } from "./threads.ts";
import { endTurn, setTurnUsage } from "./turn-records.ts";
import { parseTurnRequest } from "./turn-request.ts";

type TurnContext = Pick<EngineContext, "brain" | "questions" | "turns" | "feeds">;

export interface ExecuteCall {
  readonly body: JsonObject;
  /** The caller's name for the turn. A replay repeats it, so that the caller knows whose events it gets. */
  readonly callerTurnId: string | null;
}

/** Starts a turn and streams its events; throws to refuse it. The turn runs to its end even when its reader leaves. */
export function executeTurn(ctx: TurnContext, call: ExecuteCall, res: ServerResponse): void {
  const request = parseTurnRequest(call.body);
  const signal = ctx.turns.reserve(request.taskId);
  let turn: Turn;
  try {
    turn = openTurn(ctx.brain, request, call.callerTurnId);
  } catch (error) {
    ctx.turns.release(request.taskId);
    throw error;
  }
  ctx.feeds.open(turn.turnId);
  ctx.turns.track(runTurn({ ...ctx, signal }, turn, new SseWriter(res, signal)));
}

/** `signal` aborts when the turn must end. Its reason is the error that the turn ends with. */
type RunContext = TurnContext & { readonly signal: AbortSignal };

async function runTurn(ctx: RunContext, turn: Turn, reader: SseWriter): Promise<void> {
  const { event, id } = await playToEnd(ctx, turn, reader);
  // The task is free before the last event is sent: its reader may start the task's next turn at once.
  ctx.turns.release(turn.taskId);
  ctx.feeds.close(turn.turnId);
  await reader.send(event.type, JSON.stringify(event.data), id);
  await reader.end();
}

/** `id` undefined: the event could not be recorded. */
interface LastEvent {
  readonly event: EngineEvent;
  readonly id: number | undefined;
}

/** Returns the turn's last event, recorded but not yet sent. Never throws. */
async function playToEnd(ctx: RunContext, turn: Turn, reader: SseWriter): Promise<LastEvent> {
  // Records each event before it is sent, so that a replay has every event that a reader got.
  const emit = async (event: EngineEvent): Promise<void> => {
    const id = recordEvent(ctx.brain, turn, event);
    ctx.feeds.announce(turn.turnId);
    await reader.send(event.type, JSON.stringify(event.data), id);
    ctx.signal.throwIfAborted();
  };
  try {
    await emit(lifecycle(turn, "started", { message_id: turn.userMessage.messageId }));
    const script = playTurn(ctx, turn);
    let step = await script.next();
    while (!step.done) {
      await emit(step.value);
      step = await script.next();
    }
    return completeTurn(ctx, turn, step.value);
  } catch (error) {
    return failTurn(ctx, turn, ctx.signal.aborted ? ctx.signal.reason : error);
  }
}

function completeTurn(ctx: TurnContext, turn: Turn, played: PlayedTurn): LastEvent {
  const messageId = randomUUID();
  const event = lifecycle(turn, "completed", { message_id: messageId });
  const id = ctx.brain.transaction(() => {
    addMessage(ctx.brain, {
      messageId,
      taskId: turn.taskId,
      exchange: turn.userMessage.exchange,
      role: "assistant",
      content: { text: played.answer, media: [] },
      createdAt: new Date().toISOString(),
    });
    setWorkingMemory(ctx.brain, turn.taskId, played.workingMemory);
    setTurnUsage(ctx.brain, turn.turnId, played.usage);
    endTurn(ctx.brain, turn.turnId, "completed");
    return recordEvent(ctx.brain, turn, event);
  });
  return { event, id };
}

function failTurn(ctx: TurnContext, turn: Turn, error: unknown): LastEvent {
  if (!(error instanceof EngineError)) logLine("turn failed", { turn_id: turn.turnId, error: String(error) });
  const isCancelled = error instanceof TurnCancelled;
  const event: EngineEvent = isCancelled
    ? lifecycle(turn, "errored", toErrorEnvelope(error))
    : { type: "error", data: toErrorEnvelope(error) };
  let id: number | undefined;
  try {
    id = ctx.brain.transaction(() => {
      endTurn(ctx.brain, turn.turnId, isCancelled ? "interrupted" : "failed");
      return recordEvent(ctx.brain, turn, event);
    });
  } catch (cause) {
    // The reader still gets the event. The record stays `running`, and the next start marks it interrupted.
    logLine("the end of a turn was not recorded", { turn_id: turn.turnId, error: String(cause) });
  }
  return { event, id };
}

type Lifecycle = Extract<EngineEvent, { type: "thread_lifecycle" }>;

function lifecycle(
  turn: Turn,
  phase: Lifecycle["data"]["phase"],
  more: Pick<Lifecycle["data"], "message_id" | "error" | "message">,
): Lifecycle {
  const timestamp = new Date().toISOString();
  return {
    type: "thread_lifecycle",
    data: { phase, task_id: turn.taskId, turn_id: turn.turnId, timestamp, ...more },
  };
}
