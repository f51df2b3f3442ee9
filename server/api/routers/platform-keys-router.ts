import { z } from "zod";
import { SCOPES } from "../../../db/schema.ts";
import { issuePlatformKey } from "../../keys/issue-platform-key.ts";
import { listPlatformKeys } from "../../keys/list-platform-keys.ts";
import { revokePlatformKey } from "../../keys/revoke-platform-key.ts";
import { Cursor, IdempotencyKey, Instant, Limit, Name, Uuid } from "./field-schemas.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { KeySchema } from "./product-schemas.ts";
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
    .output(z.object({ key: KeySchema, apiKey: z.string() }))
    .mutation(async (opts) => runOnce(opts, async (input) => issuePlatformKey(opts.ctx.call, input))),
  list: operatorProcedure
    .input(List)
    .output(z.object({ items: z.array(KeySchema), nextCursor: z.string().nullable() }))
    .query(async ({ ctx, input }) => listPlatformKeys(ctx.call, input)),
  // An operator must be able to revoke a leaked key at any time, also while the replica drains.
  revoke: operatorProcedure
    .meta({ whileDraining: true })
    .input(Revoke)
    .output(KeySchema)
    .mutation(async (opts) => runOnce(opts, async (input) => revokePlatformKey(opts.ctx.call, input))),
});
