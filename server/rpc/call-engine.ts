import type { RpcContext } from "./rpc-context.ts";
import { recordCall } from "../audit/append-audit.ts";
import type { AuditAction } from "../audit/audit-entry.ts";
import { acquireEngine } from "../engines/access/acquire-engine.ts";
import { callHolder } from "../engines/access/hold-view.ts";
import type { HeldEngine } from "../engines/access/hold-engine.ts";
import { DomainError, toErrorMessage } from "../errors.ts";
import { postRpc, type RpcRequest, type RpcResult } from "../engine-contract/rpc.ts";
import { findUnknownOutcome } from "../engine-contract/unknown-outcome.ts";

export interface CallEngineInput
  extends Pick<RpcRequest, "method" | "params">, Partial<Pick<RpcRequest, "readOnly" | "signal">> {
  productId: string;
  userId: string;
  /** Limits the whole call: the wait for the engine and its answer. */
  timeoutMs: number;
  expectGeneration?: number | undefined;
}

/** The methods that the audit log records, whether a typed procedure or `rpc.call` sends them. */
const AUDITED_METHODS: ReadonlyMap<string, AuditAction> = new Map([
  ["set_config", "rpc.config_set"],
  ["reload", "rpc.reloaded"],
]);

/** Sends one `/rpc` call and holds the engine until it ends. Throws what `acquireEngine` and `postRpc` throw. */
export async function callEngine(
  ctx: RpcContext,
  input: CallEngineInput,
): Promise<{ result: RpcResult; generation: number }> {
  const { productId, userId, timeoutMs, expectGeneration, readOnly = false, signal } = input;
  const startedAt = ctx.clock.now();
  using early = ctx.connections.early.open(productId, userId);
  const holder = callHolder(input.method);
  const acquiring = { productId, userId, timeoutMs, expectGeneration, signal, holder };
  using engine = await acquireEngine(ctx, acquiring);
  early.remember(engine.endpoint);
  const spentMs = ctx.clock.now() - startedAt;
  const record = async (outcome: "done" | "unknown") =>
    recordOutcome(ctx, input, { engine, outcome, durationMs: ctx.clock.now() - startedAt });
  const { method, params } = input;
  try {
    const request = { method, params, timeoutMs: Math.max(1, timeoutMs - spentMs), readOnly, signal };
    const result = await postRpc(ctx.connections, engine, request);
    await record("done").catch((cause: unknown) => {
      // The engine has acted by now, so a failed record must not look like a call that the caller may repeat.
      const message = "the engine completed the call, but the audit log could not record it";
      throw new DomainError("OUTCOME_UNKNOWN", message, { cause });
    });
    return { result, generation: engine.generation };
  } catch (error) {
    // The engine may have failed, so the next call reads its row.
    ctx.holds.kept.forget(engine.engineId);
    if (findUnknownOutcome(error)) {
      await record("unknown").catch((failure: unknown) => {
        const fields = { method, error: toErrorMessage(failure) };
        ctx.log.error(fields, "a call of unknown outcome is missing in the audit log");
      });
    }
    throw error;
  }
}

async function recordOutcome(
  ctx: RpcContext,
  input: CallEngineInput,
  call: { engine: HeldEngine; outcome: "done" | "unknown"; durationMs: number },
): Promise<void> {
  const { engine, outcome, durationMs } = call;
  const action = AUDITED_METHODS.get(input.method);
  if (action === undefined) return;
  await recordCall(ctx, {
    scope: input.productId,
    actor: ctx.actor,
    action,
    userId: input.userId,
    engineId: engine.engineId,
    requestId: ctx.requestId,
    metadata: { outcome, generation: engine.generation, configKeys: listConfigKeys(input.params) },
    durationMs,
  });
}

const MAX_CONFIG_KEYS = 50;
const MAX_KEY_LENGTH = 100;

/** The names of a config's top-level fields. Their values may be secret, so the audit log does not get them. */
function listConfigKeys(params: Readonly<Record<string, unknown>>): string[] {
  const config = params["config"];
  if (typeof config !== "object" || config === null || Array.isArray(config)) return [];
  return Object.keys(config)
    .slice(0, MAX_CONFIG_KEYS)
    .map((name) => name.slice(0, MAX_KEY_LENGTH));
}
