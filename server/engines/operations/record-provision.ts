import { randomUUIDv7 } from "node:crypto";
import type { Db } from "../../../db/client.ts";
import {
  countEngines,
  countEnginesUpTo,
  findEngine,
  insertEngine,
  lockEngine,
  type EnginePatch,
  type EngineRow,
  type EngineUser,
  type PortRange,
} from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import { lockProduct, type ProductRow } from "../../../db/products.ts";
import type { EngineSpec } from "../../../db/schema.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import { DomainError } from "../../errors.ts";
import { sealEngineKey } from "../../keys/engine-key.ts";
import type { NewKey } from "../../keys/key-format.ts";
import { requireAuthenticProduct } from "../../products/product-mac.ts";
import { toPolicy } from "../../products/product-policy.ts";
import { engineDestroying } from "../model/absent-engine-errors.ts";
import { toEngineMac, toProvenPatch } from "../model/engine-mac.ts";
import { moveEngine } from "../model/move-engine.ts";
import { reserveHostPort } from "../reconcile/reserve-host-port.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";
import { toSpecHash } from "../model/engine-spec.ts";
import type { OperationContext } from "./operation-context.ts";
import type { OperationInput } from "./record-desired-state.ts";

export interface RecordProvisionInput extends OperationInput {
  spec: EngineSpec;
  key: NewKey;
}

type RecordContext = Pick<
  OperationContext,
  "config" | "keyring" | "runtime" | "takenPorts" | "actor" | "requestId"
>;

const DESIRED = { desired: "running", desiredBy: "caller" } as const;
const DESTROY_RETRY_MS = 2_000;

/**
 * Reserves quota, user, port and key together, with the product locked: inserts the engine, or provisions it again after its
 * first boot has failed. Throws ENGINE_ALREADY_EXISTS, ENGINE_DESTROYING, PRODUCT_NOT_FOUND, QUOTA_EXCEEDED,
 * PORT_EXHAUSTION or ROW_TAMPERED.
 */
export async function recordProvision(
  ctx: RecordContext,
  tx: Db,
  input: RecordProvisionInput,
): Promise<EngineRow> {
  // Read without a lock, because the idempotency record and the product have to be locked before the engine.
  const found = await findEngine(tx, input);
  const id = found?.id ?? randomUUIDv7();
  await input.idempotency.setSubject(tx, id);
  const product = await lockProduct(tx, input.productId);
  if (product === undefined) throw new DomainError("PRODUCT_NOT_FOUND", "the product was removed");
  const existing = await lockEngine(tx, input);
  if (found !== undefined && existing === undefined) throw engineDestroying(DESTROY_RETRY_MS);
  if (existing === undefined) await requireQuota(ctx, tx, product);
  const written =
    existing === undefined
      ? await insertProvisioning(ctx, tx, { ...input, id })
      : await provisionAgain(ctx, tx, { ...input, row: existing });
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

/**
 * With the product locked, so of any number of callers at any number of replicas each counts what the one before has
 * committed. Every row counts until it is gone: its engine may still have a container, a volume and a port.
 */
async function requireQuota(ctx: RecordContext, tx: Db, product: ProductRow): Promise<void> {
  requireAuthenticProduct(ctx.keyring, product);
  const { id: productId, policy } = product;
  const { maxEngines } = toPolicy(policy);
  if (maxEngines === undefined) return;
  if ((await countEnginesUpTo(tx, { productId, max: maxEngines })) < maxEngines) return;
  const engineCount = await countEngines(tx, productId);
  throw new DomainError(
    "QUOTA_EXCEEDED",
    `the product has ${engineCount} engine(s), and its policy allows ${maxEngines} (maxEngines), those that have failed or ` +
      "are being destroyed included: destroy engines, or ask an operator to raise the limit",
  );
}

async function insertProvisioning(
  ctx: RecordContext,
  tx: Db,
  input: RecordProvisionInput & { id: string },
): Promise<EngineRow> {
  const { id, productId, userId, spec } = input;
  const engine = {
    id,
    productId,
    userId,
    ...DESIRED,
    status: "provisioning" as const,
    spec,
    specHash: toSpecHash(spec),
    volumeName: `engine-data-${id}`,
    runtimeHost: ctx.runtime.host,
    incarnation: 1,
    generation: 1,
    ...toKeyColumns(ctx, input),
  };
  const mac = toEngineMac(ctx.keyring, { ...engine, nextKeyHash: null });
  const row = await insertEngine(
    tx,
    { ...engine, mac },
    ctx.runtime.publishesHostPorts ? toPortRange(ctx) : undefined,
  );
  if (row === undefined) throw new Error(`the insert of engine ${input.id} returned no row`);
  return row;
}

/** Gives the row of a failed first boot a new key and a new container. */
async function provisionAgain(
  ctx: RecordContext,
  tx: Db,
  input: RecordProvisionInput & { row: EngineRow },
): Promise<EngineRow> {
  const { row, spec } = input;
  if (row.status === "destroying") throw engineDestroying(DESTROY_RETRY_MS);
  if (row.status !== "failed" || row.firstReadyAt !== null) {
    throw new DomainError(
      "ENGINE_ALREADY_EXISTS",
      `this user has an engine already, and its status is ${row.status}: use it, or destroy it first`,
    );
  }
  const patch: EnginePatch = {
    ...BOOT_PATCH,
    ...toKeyColumns(ctx, { ...row, key: input.key }),
    ...DESIRED,
    spec,
    specHash: toSpecHash(spec),
    incarnation: row.incarnation + 1,
    containerId: null,
    nextCheckAt: orchNow,
  };
  const proven = toProvenPatch(ctx.keyring, row, patch);
  const moved = await moveEngine(tx, { row, move: "reprovision", ...proven });
  if (moved === undefined) throw new Error(`the move "reprovision" is not allowed from "${row.status}"`);
  return moved;
}

function toKeyColumns(ctx: RecordContext, input: EngineUser & { id: string; key: NewKey }) {
  const { plaintext, hash, prefix } = input.key;
  return { keyHash: hash, keySealed: sealEngineKey(ctx.keyring, input, plaintext), keyPrefix: prefix };
}

async function withPort(ctx: RecordContext, tx: Db, row: EngineRow): Promise<EngineRow> {
  if (row.hostPort !== null || !ctx.runtime.publishesHostPorts) return row;
  const { portMin, portMax } = ctx.config;
  const hostPort = await reserveHostPort(ctx, tx, row);
  if (hostPort === undefined) {
    throw new DomainError(
      "PORT_EXHAUSTION",
      `every host port from ${portMin} to ${portMax} is in use: destroy engines, or widen ORCH_PORT_MIN to ORCH_PORT_MAX`,
      { retryAfterMs: 60_000 },
    );
  }
  return { ...row, hostPort };
}

function toPortRange(ctx: RecordContext): PortRange {
  return { min: ctx.config.portMin, max: ctx.config.portMax, except: ctx.takenPorts.list() };
}
