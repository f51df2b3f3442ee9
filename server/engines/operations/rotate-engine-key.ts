import type { OperationContext } from "./operation-context.ts";
import { findEngineById, orchNow, type EngineRow } from "../../../db/engines.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import type { Keyring } from "../../keys/keyring.ts";
import { DomainError } from "../../errors.ts";
import { createKey, hashKey, type NewKey } from "../../keys/key-format.ts";
import { awaitReconcile } from "./await-reconcile.ts";
import { engineNotFound, getEngineRow } from "./get-engine.ts";
import { refuseUnlessRunning } from "./provision-engine.ts";
import { recordDesiredState, type DesiredStateChange } from "./record-desired-state.ts";
import { BOOT_PATCH } from "../reconcile/record-move.ts";
import { refuseHopeless } from "./start-engine.ts";

export interface RotateEngineKeyInput {
  productId: string;
  userId: string;
  /** `now` interrupts who uses the engine; `idle` waits for them, and gives up at the deadline. */
  when: "idle" | "now";
  deadlineMs: number;
  idempotency: IdempotencyRecord;
}

/**
 * A new key on the same volume, which takes a new container. The next key is on record before anything is made
 * with it, and the container's own environment says which one it holds, so that a crash anywhere fails forward.
 */
export async function rotateEngineKey(
  ctx: OperationContext,
  input: RotateEngineKeyInput,
): Promise<{ apiKey: string; generation: number }> {
  const found = await getEngineRow(ctx, input);
  const resumedKey = findResumedKey(ctx, found, input);
  if (resumedKey !== undefined) return finish(ctx, found, resumedKey);
  using _gate = await ctx.holds.closeGate(found.id, {
    whenBusy: input.when === "now" ? "interrupt" : "wait",
    deadlineMs: input.deadlineMs,
    onDeadline: "give_up",
    reason: "ENGINE_RESTARTED",
  });
  const key = createKey("engine");
  const sealed = ctx.keyring.seal(key.plaintext, found.id);
  const row = await recordDesiredState(ctx, {
    ...input,
    engineId: found.id,
    action: "engine_key.rotate_requested",
    subject: key.hash,
    decide: (current) => decideRotate(current, key, sealed),
  });
  return await finish(ctx, row, key.plaintext);
}

/** An earlier attempt with the same idempotency key stored its key and died: that key is the answer. */
function findResumedKey(
  ctx: { keyring: Keyring },
  row: EngineRow,
  input: RotateEngineKeyInput,
): string | undefined {
  const { resumed, subject } = input.idempotency;
  if (!resumed || subject === null) return undefined;
  if (row.keyHash === subject) return ctx.keyring.open(row.keySealed, row.id);
  if (row.nextKeyHash !== subject || row.nextKeySealed === null) return undefined;
  return ctx.keyring.open(row.nextKeySealed, row.id);
}

async function finish(
  ctx: OperationContext,
  begun: EngineRow,
  apiKey: string,
): Promise<{ apiKey: string; generation: number }> {
  await awaitReconcile(ctx, { engineId: begun.id });
  const row = await findEngineById(ctx.db, begun.id);
  if (row === undefined) throw engineNotFound();
  const isHeld = row.keyHash === hashKey(apiKey);
  // Rotated while stopped, the key is the engine's although nothing runs; else it has to be up with it.
  if (!isHeld || row.desired !== "stopped") refuseUnlessRunning(row);
  if (!isHeld) throw new DomainError("ENGINE_BUSY", "the key was rotated once more meanwhile");
  return { apiKey, generation: row.generation };
}

function decideRotate(row: EngineRow, key: NewKey, sealed: string): DesiredStateChange {
  const patch = {
    nextKeyHash: key.hash,
    nextKeySealed: sealed,
    nextKeyPrefix: key.prefix,
    incarnation: row.incarnation + 1,
    nextCheckAt: orchNow,
  };
  const metadata = { keyPrefix: key.prefix };
  switch (row.status) {
    case "running":
      return { patch: { ...patch, ...BOOT_PATCH, desired: "running" }, move: "boot", metadata };
    case "stopped":
      // No process holds the old key any more, and the next start makes a container that holds the new one.
      return { patch: toSettledKeyPatch(row, key, sealed), action: "engine_key.rotated", metadata };
    case "failed":
      refuseHopeless(row);
      return { patch: { ...patch, ...BOOT_PATCH, desired: "running" }, move: "boot", metadata };
    case "provisioning":
    case "starting":
    case "stopping":
    case "sleeping":
      throw new DomainError("ENGINE_BUSY", `the engine is ${row.status}`, { retryAfterMs: 1_000 });
    case "destroying":
      throw new DomainError("ENGINE_DESTROYING", "the engine is being destroyed");
  }
}

function toSettledKeyPatch(row: EngineRow, key: NewKey, sealed: string): DesiredStateChange["patch"] {
  return {
    keyHash: key.hash,
    keySealed: sealed,
    keyPrefix: key.prefix,
    nextKeyHash: null,
    nextKeySealed: null,
    nextKeyPrefix: null,
    incarnation: row.incarnation + 1,
    nextCheckAt: orchNow,
  };
}
