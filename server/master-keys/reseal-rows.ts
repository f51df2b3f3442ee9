import type { Db } from "../../db/client.ts";
import { deleteOtherMasterKeyRows } from "../../db/master-keys.ts";
import { countSealedRows, lockSealedRows, writeSealedRow, type SealedRow } from "../../db/sealed-rows.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import type { Keyring } from "../keys/keyring.ts";
import type { DataKeys } from "../turns/log/data-keys.ts";
import { noteMasterKey } from "./check-master-keys.ts";
import { SEALED_TABLES, type SealedTable } from "./sealed-tables.ts";

export interface ResealInput {
  /** The most rows that this call moves. */
  batch: number;
  idempotency: IdempotencyRecord;
}

export interface Resealed {
  /** Rows that this call moved to the first key. */
  resealed: number;
  /** Rows that another call has to move. */
  remaining: number;
  /** Rows that this call met and that do not verify. No call can move them; they are refused with any key. */
  unverified: number;
}

type ResealContext = Pick<BaseContext, "db"> & {
  keyring: Keyring;
  instanceId: string;
  /** They have a way of their own, because memory and files have them too. */
  dataKeys: Pick<DataKeys, "reseal">;
} & CallContext;

/** One transaction locks at most this many rows, so that operations on them wait only briefly. */
const ROWS_PER_TRANSACTION = 100;

/**
 * Makes values again with the first master key. Each transaction locks its rows, so a concurrent operation sees them
 * before or after, and loses nothing. A call that is cut off loses nothing either: the next one finds what is left.
 */
export async function resealRows(ctx: ResealContext, input: ResealInput): Promise<Resealed> {
  const { firstKeyId } = ctx.keyring;
  const done = { resealed: 0, unverified: 0 };
  for (const table of Object.values(SEALED_TABLES)) {
    const moved = await resealTable(ctx, table, input.batch - done.resealed);
    done.resealed += moved.resealed;
    done.unverified += moved.unverified;
  }
  const outdated = await countOutdated(ctx);
  const rows = Math.max(0, outdated - done.unverified);
  const dataKeys = await ctx.dataKeys.reseal(input.batch - done.resealed);
  done.resealed += dataKeys.resealed;
  done.unverified += dataKeys.unverified;
  const remaining = rows + dataKeys.remaining;
  const reply = { ...done, remaining };
  await ctx.db.transaction(async (tx) => {
    // From now on, a start needs this key, and it does not need the others.
    await noteMasterKey({ ...ctx, db: tx });
    if (remaining === 0) await deleteOtherMasterKeyRows(tx, firstKeyId);
    await input.idempotency.complete(tx, reply);
    await appendAudit(tx, {
      scope: "platform",
      actor: ctx.actor,
      action: "master_key.resealed",
      requestId: ctx.requestId,
      metadata: { firstKeyId, ...reply },
    });
  });
  return reply;
}

async function countOutdated(ctx: ResealContext): Promise<number> {
  let count = 0;
  for (const { columns } of Object.values(SEALED_TABLES)) {
    count += await countSealedRows(ctx.db, columns, { outdatedFor: ctx.keyring.firstKeyId });
  }
  return count;
}

async function resealTable(
  ctx: ResealContext,
  table: SealedTable,
  batch: number,
): Promise<{ resealed: number; unverified: number }> {
  const done = { resealed: 0, unverified: 0 };
  let after: SealedRow | undefined;
  while (done.resealed < batch) {
    const limit = Math.min(ROWS_PER_TRANSACTION, batch - done.resealed);
    const page = { filter: { outdatedFor: ctx.keyring.firstKeyId }, after, limit };
    const rows = await ctx.db.transaction(async (tx) => {
      const locked = await lockSealedRows(tx, table.columns, page);
      const written = await Promise.all(locked.map(async (row) => resealRow(ctx, tx, { table, row })));
      return locked.map((row, index) => ({ row, isResealed: written[index] === true }));
    });
    for (const { isResealed } of rows) done[isResealed ? "resealed" : "unverified"] += 1;
    after = rows.at(-1)?.row;
    if (rows.length < limit) break;
  }
  return done;
}

/** False: the row does not verify, and stays as it is. */
async function resealRow(
  { keyring }: ResealContext,
  tx: Db,
  { table, row }: { table: SealedTable; row: SealedRow },
): Promise<boolean> {
  const patch = table.reseal(keyring, row);
  if (patch === undefined) return false;
  await writeSealedRow(tx, table.columns, { row, patch });
  return true;
}
