import { randomUUID } from "node:crypto";
import { setImmediate as nextLoop, setTimeout as sleep } from "node:timers/promises";
import { compactThread } from "./compact-thread.ts";
import { composeAnswer, countWords, fitTokens, toQuote, toTokens } from "./compose-answer.ts";
import type { EngineContext } from "./engine-context.ts";
import { EngineError } from "./engine-error.ts";
import type { BlockType, EngineEvent } from "./engine-event.ts";
import type { HumanAnswer } from "./human-questions.ts";
import type { Turn } from "./open-turn.ts";
import { findUserMessage, listMessages } from "./threads.ts";
import type { Usage } from "./turn-records.ts";

const HEARTBEAT_MS = 10_000;

type PlayContext = Pick<EngineContext, "brain" | "questions"> & {
  /** Aborts when the turn must end. */
  readonly signal: AbortSignal;
};

export interface PlayedTurn {
  readonly answer: string;
  readonly workingMemory: unknown;
  readonly usage: Usage;
}

/**
 * Yields all events between the two thread_lifecycle events, and returns what the brain stores in the end:
 *
 *     heartbeat, compaction_event?, thinking block, tool_use block, hitl?, text block, working_memory_update, usage
 *
 * Throws an EngineError to end the turn with an `error` event.
 */
export async function* playTurn(ctx: PlayContext, turn: Turn): AsyncGenerator<EngineEvent, PlayedTurn, void> {
  yield heartbeat();
  const compaction = compactThread(ctx.brain, turn.taskId, turn.userMessage.exchange);
  if (compaction) yield { type: "compaction_event", data: { task_id: turn.taskId, ...compaction } };
  const totals = countThread(ctx, turn);
  if (!turn.direct) {
    yield* think(ctx, turn);
    yield* callTool(turn, totals);
  }
  const human = turn.steering.askHuman ? yield* askHuman(ctx, turn) : undefined;
  const answer = yield* answerMessage(ctx, turn, human);

  const { text } = turn.userMessage.content;
  const workingMemory = { messages_seen: turn.userMessage.exchange, last_message: toQuote(text) };
  yield { type: "working_memory_update", data: { task_id: turn.taskId, memory: workingMemory } };
  const usage = {
    input: totals.words,
    cachedInput: totals.words - countWords(text),
    output: countWords(answer),
  };
  yield {
    type: "usage",
    data: { input_tokens: usage.input, cached_input_tokens: usage.cachedInput, output_tokens: usage.output },
  };
  return { answer, workingMemory, usage };
}

function countThread(ctx: PlayContext, turn: Turn): { messages: number; words: number } {
  const messages = listMessages(ctx.brain, turn.taskId);
  const words = messages.reduce((sum, message) => sum + countWords(message.content.text), 0);
  return { messages: messages.length, words };
}

async function* think(ctx: PlayContext, turn: Turn): AsyncGenerator<EngineEvent, void, void> {
  yield blockEdge("content_block_start", "thinking");
  for (const text of toTokens(`I look up message ${turn.userMessage.exchange} and what came before it.`)) {
    await pause(ctx, turn);
    yield { type: "thinking_delta", data: { text } };
  }
  yield blockEdge("content_block_stop", "thinking");
}

function* callTool(turn: Turn, output: unknown): Generator<EngineEvent, void, void> {
  const tool_call_id = randomUUID();
  yield blockEdge("content_block_start", "tool_use");
  yield { type: "tool_call", data: { tool: "count_words", tool_call_id, input: { task_id: turn.taskId } } };
  yield { type: "tool_result", data: { tool_call_id, output } };
  yield blockEdge("content_block_stop", "tool_use");
}

async function* askHuman(ctx: PlayContext, turn: Turn): AsyncGenerator<EngineEvent, HumanAnswer, void> {
  const asked = {
    request_id: randomUUID(),
    task_id: turn.taskId,
    kind: "question",
    question: "May I go on with the answer?",
  };
  const { request_id: requestId, task_id: taskId, kind, question } = asked;
  const answered = ctx.questions.ask({ requestId, taskId, turnId: turn.turnId, kind, question }, ctx.signal);
  yield { type: "hitl_request", data: asked };
  let answer = await answeredWithin(answered, HEARTBEAT_MS);
  while (!answer) {
    yield heartbeat();
    answer = await answeredWithin(answered, HEARTBEAT_MS);
  }
  yield {
    type: "hitl_resolved",
    data: {
      request_id: requestId,
      task_id: taskId,
      answer: answer.answer,
      ...(answer.feedback !== undefined && { feedback: answer.feedback }),
    },
  };
  return answer;
}

async function* answerMessage(
  ctx: PlayContext,
  turn: Turn,
  human: HumanAnswer | undefined,
): AsyncGenerator<EngineEvent, string, void> {
  const { exchange, content: message } = turn.userMessage;
  const previous = findUserMessage(ctx.brain, turn.taskId, exchange - 1)?.content;
  const tokens = fitTokens(
    toTokens(composeAnswer({ exchange, message, previous, human })),
    turn.steering.words,
  );
  const failAt = turn.steering.failWith === undefined ? -1 : Math.floor(tokens.length / 2);
  yield blockEdge("content_block_start", "text");
  for (const [index, text] of tokens.entries()) {
    if (index === failAt)
      throw new EngineError(500, turn.steering.failWith ?? "", "reference.failWith made this turn fail");
    await pause(ctx, turn);
    yield { type: "text_delta", data: { text } };
  }
  yield blockEdge("content_block_stop", "text");
  return tokens.join("");
}

const BLOCK_INDEX: Readonly<Record<BlockType, number>> = { thinking: 0, tool_use: 1, text: 2 };

function blockEdge(type: "content_block_start" | "content_block_stop", block_type: BlockType): EngineEvent {
  return { type, data: { block_index: BLOCK_INDEX[block_type], block_type } };
}

function heartbeat(): EngineEvent {
  return { type: "heartbeat", data: { timestamp: new Date().toISOString() } };
}

async function pause(ctx: PlayContext, turn: Turn): Promise<void> {
  const { signal } = ctx;
  const { delayMs } = turn.steering;
  signal.throwIfAborted();
  // Even without a delay, other requests may run between two tokens.
  if (delayMs === 0) return await nextLoop();
  try {
    await sleep(delayMs, undefined, { signal });
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  }
}

async function answeredWithin(answered: Promise<HumanAnswer>, ms: number): Promise<HumanAnswer | undefined> {
  const timer = new AbortController();
  try {
    const late = sleep(ms, undefined, { signal: timer.signal }).catch(() => undefined);
    return await Promise.race([answered, late]);
  } finally {
    timer.abort();
  }
}
