import { z } from "zod";
import { SCOPES } from "../../../db/schema.ts";
import { issuePlatformKey } from "../../keys/issue-platform-key.ts";
import { Key } from "../../keys/key-view.ts";
import { listPlatformKeys } from "../../keys/list-platform-keys.ts";
import { revokePlatformKey } from "../../keys/revoke-platform-key.ts";
import { Cursor, IdempotencyKey, Instant, Limit, Name, pageOf, Uuid } from "./field-schemas.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const MAX_GRACE_SECONDS = 30 * 86_400;

const Issue = z.strictObject({
  productId: Uuid,
  name: Name,
  scopes: z.array(z.enum(SCOPES)).min(1).max(SCOPES.length).optional(),
  expiresAt: Instant.optional(),
  idempotencyKey: IdempotencyKey,
});
const List = z.strictObject({ productId: Uuid, cursor: Cursor, limit: Limit });
const Revoke = z.strictObject({
  keyId: Uuid,
  productId: Uuid.optional(),
  graceSeconds: z.int().min(0).max(MAX_GRACE_SECONDS).default(0),
  idempotencyKey: IdempotencyKey,
});

export const platformKeysRouter = t.router({
  issue: operatorProcedure
    .input(Issue)
    .output(z.object({ key: Key, apiKey: z.string() }))
    .mutation(async (opts) => runOnce(opts, issuePlatformKey)),
  list: operatorProcedure
    .input(List)
    .output(pageOf(Key))
    .query(async ({ ctx, input }) => listPlatformKeys(ctx.call, input)),
  // An operator must be able to revoke a leaked key at any time, also while the replica drains.
  revoke: operatorProcedure
    .meta({ whileDraining: true })
    .input(Revoke)
    .output(Key)
    .mutation(async (opts) => runOnce(opts, revokePlatformKey)),
});
