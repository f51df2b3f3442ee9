import type { OperationContext } from "./operation-context.ts";
import { findEngineById, type EngineRow } from "../../../db/engines.ts";
import { findViolatedConstraint } from "../../../db/postgres-error.ts";
import type { ProductPolicy } from "../../products/product-policy.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import type { BaseContext } from "../../context.ts";
import type { Keyring } from "../../keys/keyring.ts";
import { DomainError, toErrorMessage } from "../../errors.ts";
import { createKey, type NewKey } from "../../keys/key-format.ts";
import { chooseImage } from "./choose-image.ts";
import { askRuntime, awaitReconcile } from "./await-reconcile.ts";
import { toEngineSpec } from "../model/engine-spec.ts";
import { findStatusReasonCode } from "../model/engine-status.ts";
import { toEngine, type Engine } from "../model/engine-view.ts";
import { insertProvisioned } from "./insert-provisioned.ts";

export interface ProvisionEngineInput {
  productId: string;
  policy: ProductPolicy;
  userId: string;
  image?: string | undefined;
  /** false: answer as soon as the engine is on record. */
  wait: boolean;
  /** Milliseconds; when it passes first the answer is an engine in `provisioning`. */
  deadlineMs?: number | undefined;
  idempotency: IdempotencyRecord;
}

/** Enough for the port to be won against every other provision of the moment. */
const PORT_TRIES = 20;

/**
 * A new engine and the one reply that its key leaves in. Throws what `insertProvisioned` and `chooseImage` throw,
 * RUNTIME_UNREACHABLE before anything was written, and BOOT_FAILED, BOOT_TIMEOUT or IMAGE_UNAVAILABLE when the
 * first boot failed: then the engine keeps its row and why, and may be provisioned again.
 */
export async function provisionEngine(
  ctx: OperationContext,
  input: ProvisionEngineInput,
): Promise<{ engine: Engine; apiKey: string }> {
  const resumed = await findResumed(ctx, input);
  const { row, apiKey } = resumed ?? (await beginProvision(ctx, input));
  if (!input.wait) {
    ctx.reconciler.begin(row.id);
    return { engine: toEngine(ctx, row), apiKey };
  }
  const booted = await waitForBoot(ctx, row, input.deadlineMs);
  if (booted.status === "failed") throw toBootError(booted);
  return { engine: toEngine(ctx, booted), apiKey };
}

/** An earlier attempt with the same idempotency key died after it wrote the engine: its key is the answer. */
async function findResumed(
  ctx: Pick<BaseContext, "db"> & { keyring: Keyring },
  input: ProvisionEngineInput,
): Promise<{ row: EngineRow; apiKey: string } | undefined> {
  if (!input.idempotency.resumed || input.idempotency.subject === null) return undefined;
  const row = await findEngineById(ctx.db, input.idempotency.subject);
  if (row === undefined || row.userId !== input.userId || row.status === "failed") return undefined;
  return { row, apiKey: ctx.keyring.open(row.keySealed, row.id) };
}

async function beginProvision(
  ctx: OperationContext,
  input: ProvisionEngineInput,
): Promise<{ row: EngineRow; apiKey: string }> {
  const choice = chooseImage(ctx, { caller: input.image, policy: input.policy.image });
  const [imageId = null] = await askRuntime(() =>
    Promise.all([ctx.runtime.findImage(choice.image), ctx.runtime.check()]),
  );
  const limitOverrides = input.policy.resources ?? {};
  // An image that has to be pulled is left to the control loop.
  const spec = { ...toEngineSpec(ctx.config, { ...choice, limitOverrides }), imageId };
  const key = createKey("engine");
  for (let tries = 1; ; tries += 1) {
    const row = await tryInsert(ctx, { ...input, spec, key }, tries);
    if (row !== undefined) return { row, apiKey: key.plaintext };
  }
}

/** undefined: another product's provision took the same port in the same moment. */
async function tryInsert(
  ctx: OperationContext,
  input: ProvisionEngineInput & { spec: EngineRow["spec"]; key: NewKey },
  tries: number,
): Promise<EngineRow | undefined> {
  try {
    return await ctx.db.transaction((tx) => insertProvisioned(ctx, tx, input));
  } catch (error) {
    switch (findViolatedConstraint(error)) {
      case "engines_host_port_key":
        if (tries < PORT_TRIES) return undefined;
        throw error;
      case "engines_product_user_key":
        throw new DomainError("ENGINE_ALREADY_EXISTS", "this user's engine is being provisioned already");
      default:
        throw error;
    }
  }
}

/** The key must never be lost: whatever keeps the boot from ending in time, the answer is the engine as it is. */
async function waitForBoot(
  ctx: OperationContext,
  begun: EngineRow,
  deadlineMs: number | undefined,
): Promise<EngineRow> {
  try {
    const row = await awaitReconcile(ctx, { engineId: begun.id, deadlineMs });
    if (row !== undefined) return row;
  } catch (error) {
    ctx.log.warn(
      { engineId: begun.id, error: toErrorMessage(error) },
      "provision answered before the boot ended",
    );
    return (await findEngineById(ctx.db, begun.id).catch(() => undefined)) ?? begun;
  }
  throw new DomainError("ENGINE_NOT_FOUND", "the engine was destroyed while it was provisioned");
}

/** A verb that wanted the engine to run says so when it does not: its boot failed, or another verb was later. */
export function refuseUnlessRunning(row: EngineRow): void {
  if (row.status === "failed") throw toBootError(row);
  if (row.desired === "stopped") throw new DomainError("ENGINE_STOPPED", "the engine was stopped meanwhile");
  if (row.desired === "destroyed")
    throw new DomainError("ENGINE_DESTROYING", "the engine is being destroyed");
}

/** What a failed boot is for its caller; the status reason has the exit code and the last log lines. */
export function toBootError(row: EngineRow): DomainError {
  const why = row.statusReason ?? "the engine did not boot";
  switch (findStatusReasonCode(row.statusReason)) {
    case "image_unavailable":
      return new DomainError("IMAGE_UNAVAILABLE", why);
    case "boot_timeout":
      return new DomainError("BOOT_TIMEOUT", why);
    case "volume_missing":
      return new DomainError("VOLUME_MISSING", why);
    case "ports_exhausted":
      return new DomainError("PORT_EXHAUSTION", why);
    default:
      return new DomainError("BOOT_FAILED", why);
  }
}
