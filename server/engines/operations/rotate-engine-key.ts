import type { OperationContext } from "./operation-context.ts";
import type { EngineRow, EngineUser } from "../../../db/engines.ts";
import { orchNow } from "../../../db/orch-now.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { DomainError } from "../../errors.ts";
import { openEngineKey, sealEngineKey } from "../../keys/engine-key.ts";
import { createKey, type NewKey } from "../../keys/key-format.ts";
import { engineDestroying } from "../model/absent-engine-errors.ts";
import { BOOT_PATCH, NO_NEXT_KEY } from "../reconcile/record-move.ts";
import { getEngineRow } from "./get-engine.ts";
import type { DesiredStateChange, OperationInput } from "./record-desired-state.ts";
import { refuseFailedFirstBoot } from "./desire-boot.ts";
import { requireRunning } from "./require-running.ts";
import { runOperation } from "./run-operation.ts";

export interface RotateEngineKeyInput extends OperationInput {
  /** `now` interrupts the engine's holds. `idle` waits for them and throws ENGINE_BUSY at the deadline. */
  when: "idle" | "now";
  /** How long `idle` waits, in milliseconds. */
  deadlineMs: number;
}

export interface RotatedKey {
  apiKey: string;
  generation: number;
}

/**
 * Makes a new container with a new key on the same volume. The next key is in the row before the container is made, and
 * the container's environment says which key it has. So after a crash at any step, reconcile completes the rotation.
 */
export async function rotateEngineKey(
  ctx: OperationContext,
  input: RotateEngineKeyInput,
): Promise<RotatedKey> {
  const key = createKey("engine");
  return runOperation(ctx, input, {
    action: "engine_key.rotate_requested",
    gate: {
      whenBusy: input.when === "now" ? "interrupt" : "wait",
      deadlineMs: input.deadlineMs,
      onDeadline: "give_up",
      reason: "ENGINE_RESTARTED",
    },
    subject: key.hash,
    desire: (row) => desireKey(row, key, sealEngineKey(ctx.keyring, row, key.plaintext)),
    resume: async (keyHash) => findEngineIdByKey(ctx, input, keyHash),
    answer: async (row, keyHash) => {
      await requireRotated(row, keyHash, input.idempotency);
      return { apiKey: openEngineKey(ctx.keyring, row), generation: row.generation };
    },
  });
}

/** undefined: another rotation has replaced that key. Throws ENGINE_NOT_FOUND. */
async function findEngineIdByKey(
  ctx: OperationContext,
  user: EngineUser,
  keyHash: string,
): Promise<string | undefined> {
  const row = await getEngineRow(ctx, user);
  return row.keyHash === keyHash || row.nextKeyHash === keyHash ? row.id : undefined;
}

async function requireRotated(
  row: EngineRow,
  keyHash: string,
  idempotency: IdempotencyRecord,
): Promise<void> {
  const isRotated = row.keyHash === keyHash;
  // The key of a stopped engine is rotated without a boot.
  if (!isRotated || row.desired !== "stopped") await requireRunning(row, idempotency);
  if (!isRotated) {
    throw new DomainError("ENGINE_BUSY", "a later call has rotated the key again: use that call's key");
  }
}

function desireKey(row: EngineRow, key: NewKey, sealed: string): DesiredStateChange {
  const { hash, prefix } = key;
  const next = { nextKeyHash: hash, nextKeySealed: sealed, nextKeyPrefix: prefix };
  const current = { keyHash: hash, keySealed: sealed, keyPrefix: prefix };
  const patch = { ...next, incarnation: row.incarnation + 1, nextCheckAt: orchNow };
  const metadata = { keyPrefix: prefix };
  switch (row.status) {
    case "stopped":
      // No process has the old key any more, and the next start makes a container with the new key.
      return {
        patch: { ...patch, ...current, ...NO_NEXT_KEY },
        action: "engine_key.rotated",
        metadata,
      };
    case "running":
    case "failed":
      refuseFailedFirstBoot(row);
      return { patch: { ...patch, ...BOOT_PATCH, desired: "running" }, move: "boot", metadata };
    case "provisioning":
    case "starting":
    case "stopping":
    case "sleeping":
      throw new DomainError("ENGINE_BUSY", `the engine is ${row.status}: call again later`, {
        retryAfterMs: 1_000,
      });
    case "destroying":
      throw engineDestroying();
  }
}
