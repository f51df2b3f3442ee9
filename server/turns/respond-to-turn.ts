import { findTurn, type TurnRow } from "../../db/turns.ts";
import { noSuchQuestion, postHumanAnswer, type HumanAnswer } from "../engine-contract/hitl.ts";
import { acquireEngine, type AcquireContext } from "../engines/access/acquire-engine.ts";
import { callHolder } from "../engines/access/hold-view.ts";
import { DomainError } from "../errors.ts";
import type { LiveTurn } from "./model/live-turn.ts";
import { parseEnd } from "./model/turn-end.ts";
import { turnNotFound } from "./model/turn-view.ts";
import type { TurnContext } from "./turn-context.ts";
import type { RunContext } from "./upstream/run-context.ts";

export type RespondContext = Pick<TurnContext, "raw" | "turns"> &
  AcquireContext &
  Pick<RunContext, "connections">;

/** A turn by its id, or the task of a user. */
export type RespondAddress = { turnId: string } | { userId: string; taskId: string };

export interface RespondInput extends Omit<HumanAnswer, "taskId"> {
  productId: string;
  address: RespondAddress;
}

interface Target {
  userId: string;
  taskId: string;
  /** The turn, if it is live on this replica. */
  live: LiveTurn | undefined;
  /** Of the engine that asks. undefined: any. */
  expectGeneration: number | undefined;
}

/** For the wait for the engine and its answer. */
const TIMEOUT_MS = 30_000;

/**
 * Sends a person's answer to the engine of a turn, once. Returns what the engine says.
 *
 * @throws TURN_NOT_FOUND, also for a turn that has ended or has not begun; ENGINE_ERROR with the engine's error code
 * NO_PENDING_REQUEST if the question of `requestId` is not open; GENERATION_CHANGED if the engine has lost its memory
 * since the turn's start; what `acquireEngine` and `postHumanAnswer` throw.
 */
export async function respondToTurn(ctx: RespondContext, input: RespondInput): Promise<{ status: string }> {
  const { productId, address, requestId, ...given } = input;
  const startedAt = ctx.clock.now();
  const { userId, taskId, live, expectGeneration } = await findTarget(ctx, productId, address);
  using engine = await acquireEngine(ctx, {
    productId,
    userId,
    timeoutMs: TIMEOUT_MS,
    expectGeneration,
    holder: callHolder("turns.respond"),
    // An operation that waits for this turn would otherwise wait for its deadline.
    passesGate: live && (() => isUnderWay(live)),
  });
  // Checked after the wait for the engine, because the question may have got its answer during that wait.
  if (requestId !== undefined && live && !live.questions.has(requestId)) throw noSuchQuestion(requestId);
  const timeoutMs = Math.max(1, TIMEOUT_MS - (ctx.clock.now() - startedAt));
  const answer = { ...given, taskId, requestId, timeoutMs };
  const oldest = live?.questions.oldest;
  const accepted = await postHumanAnswer(ctx.connections, engine, answer);
  // An engine may continue without the event `hitl_resolved`. Its silence must count again.
  live?.questions.accept(accepted.requestId ?? requestId, oldest);
  return { status: accepted.status };
}

async function findTarget(ctx: RespondContext, productId: string, address: RespondAddress): Promise<Target> {
  if ("taskId" in address) return { ...address, ...findTaskTurn(ctx, { productId, ...address }) };
  const { turnId } = address;
  const live = ctx.turns.find(productId, turnId);
  if (live && isUnderWay(live)) {
    const { userId, taskId } = live.input;
    return { userId, taskId, live, expectGeneration: live.record?.generation };
  }
  const row = await findTurn(ctx.raw, { productId, turnId });
  if (row === undefined) throw turnNotFound();
  if (row.end !== null || row.status === "starting" || live) throw noQuestion(row);
  return { userId: row.userId, taskId: row.taskId, live: undefined, expectGeneration: row.generation };
}

function findTaskTurn(
  { turns }: Pick<RespondContext, "turns">,
  task: { productId: string; userId: string; taskId: string },
): Pick<Target, "live" | "expectGeneration"> {
  const live = turns.findTask(task);
  return live && isUnderWay(live)
    ? { live, expectGeneration: live.record?.generation }
    : { live: undefined, expectGeneration: undefined };
}

/** Only then its engine can have a question of this turn, and not of an earlier one. */
function isUnderWay(turn: LiveTurn): boolean {
  return turn.state === "streaming" && turn.stopCause === undefined;
}

function noQuestion(row: TurnRow): DomainError {
  if (row.end === null) {
    const state = row.status === "starting" ? "has not begun" : "is ending";
    return new DomainError("TURN_NOT_FOUND", `the turn ${state}: it waits for no answer`);
  }
  const { status, engineMayContinue } = parseEnd(row.end);
  const advice = engineMayContinue
    ? "; its engine may still wait for the answer: send it to POST /trpc/turns.respond with userId and taskId"
    : ", and waits for no answer";
  return new DomainError("TURN_NOT_FOUND", `the turn has ended (${status})${advice}`);
}
