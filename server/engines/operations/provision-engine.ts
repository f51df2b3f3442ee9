import type { OperationContext } from "./operation-context.ts";
import { findEngineById, type EngineRow, type EngineUser } from "../../../db/engines.ts";
import { findViolatedConstraint } from "../../../db/postgres-error.ts";
import type { ProductPolicy } from "../../products/product-policy.ts";
import { findEarlierWork } from "../../idempotency/find-earlier-work.ts";
import { DomainError, toErrorMessage } from "../../errors.ts";
import { openEngineKey } from "../../keys/engine-key.ts";
import { createKey, type NewKey } from "../../keys/key-format.ts";
import { chooseImage } from "./choose-image.ts";
import { awaitReconcile, callRuntime } from "./await-reconcile.ts";
import { toEngineSpec } from "../model/engine-spec.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import type { OperationInput } from "./record-desired-state.ts";
import { recordProvision } from "./record-provision.ts";
import { failBoot } from "./require-running.ts";

export interface ProvisionEngineInput extends OperationInput {
  policy: ProductPolicy;
  image?: string | undefined;
  /** false: answer as soon as the engine is on record. */
  wait: boolean;
  /** Milliseconds. After it, the answer is the engine in `provisioning`. */
  deadlineMs?: number | undefined;
}

interface ProvisionedRow {
  row: EngineRow;
  apiKey: string;
}

/**
 * Makes an engine, and returns it with its key. Throws what `recordProvision` and `chooseImage` throw, and
 * RUNTIME_UNREACHABLE or RUNTIME_CHANGED before anything is written. If the first boot fails, throws BOOT_FAILED,
 * BOOT_TIMEOUT or IMAGE_UNAVAILABLE. Then the engine keeps its row and the reason, and may be provisioned again.
 */
export async function provisionEngine(
  ctx: OperationContext,
  input: ProvisionEngineInput,
): Promise<{ engine: Engine; apiKey: string }> {
  const resumed = await findEarlierWork(input.idempotency, async (id) => findProvisioned(ctx, input, id));
  const endsAtMs = performance.now() + (input.deadlineMs ?? 0);
  const { row, apiKey } = resumed ?? (await startProvision(ctx, input));
  if (!input.wait) {
    ctx.reconciler.start(row.id);
    return { engine: toEngine(ctx, row), apiKey };
  }
  const leftMs = Math.max(1, Math.ceil(endsAtMs - performance.now()));
  const booted = await awaitFirstBoot(ctx, row, input.deadlineMs === undefined ? undefined : leftMs);
  if (booted.status === "failed") await failBoot(booted, input.idempotency);
  return { engine: toEngine(ctx, booted), apiKey };
}

/**
 * The engine that an earlier attempt has recorded, with its key. undefined: it has failed or is gone. The id comes from
 * the idempotency record, which no MAC covers. So it counts only if the engine is this user's.
 */
async function findProvisioned(
  ctx: OperationContext,
  { productId, userId }: EngineUser,
  id: string,
): Promise<ProvisionedRow | undefined> {
  const row = await findEngineById(ctx.db, id);
  if (row === undefined || row.status === "failed") return undefined;
  if (row.productId !== productId || row.userId !== userId) return undefined;
  return { row, apiKey: openEngineKey(ctx.keyring, row) };
}

async function startProvision(ctx: OperationContext, input: ProvisionEngineInput): Promise<ProvisionedRow> {
  const choice = chooseImage(ctx, { caller: input.image, policy: input.policy.image });
  const [imageId = null] = await callRuntime(
    () => Promise.all([ctx.runtime.findImage(choice.image), ctx.runtime.check()]),
    input.deadlineMs,
  );
  // The limit of the volume is no part of the container: the present policy decides.
  const { volumeMb: _volumeMb, ...limitOverrides } = input.policy.resources ?? {};
  // An image that is not on the runtime host yet has no id: reconcile pulls it.
  const network = input.policy.network === "internal" ? { internal: true as const } : {};
  const spec = { ...toEngineSpec(ctx.config, { ...choice, ...network, limitOverrides }), imageId };
  const key = createKey("engine");
  return { row: await record(ctx, { ...input, spec, key }), apiKey: key.plaintext };
}

async function record(
  ctx: OperationContext,
  input: ProvisionEngineInput & { spec: EngineRow["spec"]; key: NewKey },
): Promise<EngineRow> {
  using _slot = await ctx.recordSlots.take(input.productId);
  try {
    const row = await ctx.db.transaction((tx) => recordProvision(ctx, tx, input));
    ctx.metrics.statusMoved(row.incarnation === 1 ? null : "failed", row.status);
    return row;
  } catch (error) {
    if (findViolatedConstraint(error) !== "engines_product_user_key") throw error;
    throw new DomainError(
      "ENGINE_ALREADY_EXISTS",
      "another call provisions this user's engine: use that one",
    );
  }
}

/** If the wait fails, returns the engine as it is: an error would lose the key. */
async function awaitFirstBoot(
  ctx: OperationContext,
  recorded: EngineRow,
  deadlineMs: number | undefined,
): Promise<EngineRow> {
  try {
    const row = await awaitReconcile(ctx, { engineId: recorded.id, deadlineMs });
    if (row !== undefined) return row;
  } catch (error) {
    const fields = { engineId: recorded.id, error: toErrorMessage(error) };
    ctx.log.warn(fields, "provision answers before the boot has ended");
    return (await findEngineById(ctx.db, recorded.id).catch(() => undefined)) ?? recorded;
  }
  throw new DomainError(
    "ENGINE_NOT_FOUND",
    "the engine was destroyed while it was provisioned: provision it again",
  );
}
