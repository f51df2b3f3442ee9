import type { RpcContext } from "./rpc-context.ts";
import { recordCall } from "../audit/append-audit.ts";
import type { AuditAction } from "../audit/audit-entry.ts";
import { acquireEngine } from "../engines/access/acquire-engine.ts";
import type { HeldEngine } from "../engines/access/hold-engine.ts";
import { DomainError, toErrorMessage } from "../errors.ts";
import { postRpc } from "../engine-contract/rpc.ts";
import { findUnknownOutcome } from "../engine-contract/unknown-outcome.ts";

export interface CallEngineInput {
  productId: string;
  userId: string;
  method: string;
  params: Readonly<Record<string, unknown>>;
  /** For everything together: waiting for the engine, and its answer. */
  timeoutMs: number;
  expectGeneration?: number | undefined;
  /** The method changes nothing, so that a lost answer leaves nothing unknown. Not so by default. */
  readOnly?: boolean;
  /** Gives up when the caller leaves; only for what is read-only, because a cut call may have had its effect. */
  signal?: AbortSignal | undefined;
}

export interface EngineAnswer {
  result: unknown;
  generation: number;
}

/** What is recorded, whether it came by its own procedure or as a plain call. */
const AUDITED_METHODS: ReadonlyMap<string, AuditAction> = new Map([
  ["set_config", "rpc.config_set"],
  ["reload", "rpc.reloaded"],
]);

/** One `/rpc` call, with the engine held while it lasts. Throws what `acquireEngine` and `postRpc` throw. */
export async function callEngine(ctx: RpcContext, input: CallEngineInput): Promise<EngineAnswer> {
  const { productId, userId, timeoutMs, expectGeneration, readOnly = false, signal } = input;
  const startedAt = ctx.clock.now();
  using use = await acquireEngine(ctx, { productId, userId, timeoutMs, expectGeneration, signal });
  const spentMs = ctx.clock.now() - startedAt;
  const { method, params } = input;
  try {
    const request = { method, params, timeoutMs: Math.max(1, timeoutMs - spentMs), readOnly, signal };
    const result = await postRpc(ctx.connections, use, request);
    await recordDone(ctx, input, { use, outcome: "done", durationMs: ctx.clock.now() - startedAt });
    return { result, generation: use.generation };
  } catch (error) {
    if (findUnknownOutcome(error)) {
      const record: CallRecord = { use, outcome: "unknown", durationMs: ctx.clock.now() - startedAt };
      await recordOutcome(ctx, input, record).catch((failure: unknown) => {
        ctx.log.error(
          { method, error: toErrorMessage(failure) },
          "a call of unknown outcome was not recorded",
        );
      });
    }
    throw error;
  }
}

/** The engine has done it by now, so a record that fails must not look like a call that may be made again. */
async function recordDone(ctx: RpcContext, input: CallEngineInput, record: CallRecord): Promise<void> {
  try {
    await recordOutcome(ctx, input, record);
  } catch (error) {
    throw new DomainError("OUTCOME_UNKNOWN", "the engine did it, and that could not be recorded", {
      cause: error,
    });
  }
}

interface CallRecord {
  use: HeldEngine;
  outcome: "done" | "unknown";
  durationMs: number;
}

async function recordOutcome(
  ctx: RpcContext,
  input: CallEngineInput,
  { use, outcome, durationMs }: CallRecord,
): Promise<void> {
  const action = AUDITED_METHODS.get(input.method);
  if (action === undefined) return;
  await recordCall(ctx, {
    scope: input.productId,
    actor: ctx.actor,
    action,
    userId: input.userId,
    engineId: use.engineId,
    requestId: ctx.requestId,
    metadata: { outcome, generation: use.generation, configKeys: listConfigKeys(input.params) },
    durationMs,
  });
}

const MAX_CONFIG_KEYS = 50;
const MAX_KEY_LENGTH = 100;

/** What a config is about; what is in it may be secret. */
function listConfigKeys(params: Readonly<Record<string, unknown>>): string[] {
  const config = params["config"];
  if (typeof config !== "object" || config === null || Array.isArray(config)) return [];
  return Object.keys(config)
    .slice(0, MAX_CONFIG_KEYS)
    .map((name) => name.slice(0, MAX_KEY_LENGTH));
}
