import { randomUUIDv7 } from "node:crypto";
import type { Db } from "../../../db/client.ts";
import {
  reservePort,
  findEngine,
  insertEngine,
  lockEngine,
  orchNow,
  type EnginePatch,
  type EngineRow,
  type PortRange,
} from "../../../db/engines.ts";
import { lockProduct } from "../../../db/products.ts";
import type { EngineSpec } from "../../../db/schema.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../../context.ts";
import type { Keyring } from "../../keys/keyring.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import type { TakenPorts } from "../reconcile/taken-ports.ts";
import { DomainError } from "../../errors.ts";
import type { NewKey } from "../../keys/key-format.ts";
import { moveEngine } from "../model/move-engine.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";
import { toSpecHash } from "../model/engine-spec.ts";

export interface NewEngineInput {
  productId: string;
  userId: string;
  spec: EngineSpec;
  key: NewKey;
  idempotency: IdempotencyRecord;
}

type InsertContext = Pick<BaseContext, "config"> & {
  keyring: Keyring;
  runtime: EngineRuntime;
  takenPorts: TakenPorts;
} & CallContext;

/**
 * The one transaction in which an engine comes to be: user, port and key are reserved together, with the product
 * locked. Throws ENGINE_ALREADY_EXISTS, ENGINE_DESTROYING, PRODUCT_NOT_FOUND or PORT_EXHAUSTION.
 */
export async function insertProvisioned(
  ctx: InsertContext,
  tx: Db,
  input: NewEngineInput,
): Promise<EngineRow> {
  // Read without a lock first: the idempotency row and the product come before the engine in the lock order.
  const found = await findEngine(tx, { productId: input.productId, userId: input.userId });
  const id = found?.id ?? randomUUIDv7();
  await input.idempotency.setSubject(tx, id);
  if ((await lockProduct(tx, input.productId)) === undefined) {
    throw new DomainError("PRODUCT_NOT_FOUND", "the product was removed");
  }
  const existing = await lockEngine(tx, input);
  if (found !== undefined && existing === undefined) throw engineDestroying();
  const written =
    existing === undefined
      ? await insertNew(ctx, tx, { ...input, id })
      : await revive(ctx, tx, { ...input, row: existing });
  const row = await withPort(ctx, tx, written);
  await appendAudit(tx, {
    scope: row.productId,
    actor: ctx.actor,
    action: "engine.provision_requested",
    userId: row.userId,
    engineId: row.id,
    requestId: ctx.requestId,
    metadata: { image: row.spec.image, keyPrefix: row.keyPrefix },
  });
  return row;
}

async function insertNew(
  ctx: InsertContext,
  tx: Db,
  input: NewEngineInput & { id: string },
): Promise<EngineRow> {
  const engine = {
    id: input.id,
    productId: input.productId,
    userId: input.userId,
    desired: "running" as const,
    desiredBy: "caller" as const,
    status: "provisioning" as const,
    spec: input.spec,
    specHash: toSpecHash(input.spec),
    volumeName: `engine-data-${input.id}`,
    runtimeHost: ctx.runtime.host,
    incarnation: 1,
    generation: 1,
    ...toKeyColumns(ctx, input),
  };
  const row = await insertEngine(tx, engine, toPortRange(ctx));
  if (row === undefined) throw new Error("the engine was not inserted");
  return row;
}

/** An engine whose first boot failed kept its row; it begins again with a new key and a new container. */
async function revive(
  ctx: InsertContext,
  tx: Db,
  input: NewEngineInput & { row: EngineRow },
): Promise<EngineRow> {
  const { row, spec } = input;
  if (row.status === "destroying") throw engineDestroying();
  if (row.status !== "failed" || row.firstReadyAt !== null) {
    throw new DomainError("ENGINE_ALREADY_EXISTS", `this user has an engine already; it is ${row.status}`);
  }
  const patch: EnginePatch = {
    ...BOOT_PATCH,
    ...toKeyColumns(ctx, { id: row.id, key: input.key }),
    desired: "running",
    desiredBy: "caller",
    spec,
    specHash: toSpecHash(spec),
    incarnation: row.incarnation + 1,
    containerId: null,
    nextCheckAt: orchNow,
  };
  const moved = await moveEngine(tx, { row, move: "reprovision", patch });
  if (moved === undefined) throw new Error(`reprovision is not allowed from ${row.status}`);
  return moved;
}

function toKeyColumns(ctx: InsertContext, input: { id: string; key: NewKey }) {
  const { plaintext, hash, prefix } = input.key;
  return { keyHash: hash, keySealed: ctx.keyring.seal(plaintext, input.id), keyPrefix: prefix };
}

async function withPort(ctx: InsertContext, tx: Db, row: EngineRow): Promise<EngineRow> {
  if (row.hostPort !== null) return row;
  const { min, max, except } = toPortRange(ctx);
  const hostPort = await reservePort(tx, { id: row.id, runtimeHost: row.runtimeHost, min, max, except });
  if (hostPort === undefined) {
    throw new DomainError("PORT_EXHAUSTION", `every host port from ${min} to ${max} is in use`, {
      retryAfterMs: 60_000,
    });
  }
  return { ...row, hostPort };
}

function toPortRange(ctx: InsertContext): PortRange {
  return { min: ctx.config.portMin, max: ctx.config.portMax, except: ctx.takenPorts.list() };
}

function engineDestroying(): DomainError {
  return new DomainError(
    "ENGINE_DESTROYING",
    "this user's engine is being destroyed; provision again after that",
    {
      retryAfterMs: 2_000,
    },
  );
}
