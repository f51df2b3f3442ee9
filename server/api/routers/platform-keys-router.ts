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
  productId: Uuid.describe("The product that the key acts for."),
  name: Name.describe("By which people tell keys apart."),
  scopes: z
    .array(z.enum(SCOPES))
    .min(1)
    .max(SCOPES.length)
    .optional()
    .describe("What the key may do. Without it, everything but `keys`."),
  expiresAt: Instant.optional().describe(
    "The key is refused from this instant on, ISO 8601 with an offset. Without it, the key does not expire.",
  ),
  idempotencyKey: IdempotencyKey,
});
const IssuedKey = z.object({
  key: Key.describe("The key's record."),
  apiKey: z.string().describe("The key in plain text. The service keeps only its hash: store it now."),
});
const List = z.strictObject({
  productId: Uuid.describe("The product whose keys to list."),
  cursor: Cursor,
  limit: Limit,
});
const Revoke = z.strictObject({
  keyId: Uuid.describe("The key to revoke."),
  productId: Uuid.optional().describe(
    "Revoke the key only if it belongs to this product. Without it, a key of any product.",
  ),
  graceSeconds: z
    .int()
    .min(0)
    .max(MAX_GRACE_SECONDS)
    .default(0)
    .describe("How long the key still works, in seconds, so that callers can change to another one."),
  idempotencyKey: IdempotencyKey,
});

export const platformKeysRouter = t.router({
  issue: operatorProcedure
    .meta({
      summary: "Issues a platform key for a product.",
      description: "`expiresAt` in the past is INVALID_INPUT.",
      reasons: ["PRODUCT_NOT_FOUND"],
    })
    .input(Issue)
    .output(IssuedKey)
    .mutation(async (opts) => runOnce(opts, issuePlatformKey)),
  list: operatorProcedure
    .meta({
      summary: "Lists the platform keys of a product.",
      description: "In the order of their issue, with revoked and expired keys, without plain texts.",
      reasons: ["PRODUCT_NOT_FOUND"],
    })
    .input(List)
    .output(pageOf(Key))
    .query(async ({ ctx, input }) => listPlatformKeys(ctx.call, input)),
  // An operator must be able to revoke a leaked key at any time, also while the replica drains.
  revoke: operatorProcedure
    .meta({
      whileDraining: true,
      summary: "Revokes a platform key, at once or after a grace period.",
      description:
        "A revoked key is a success. Of two revocations the earlier instant counts. Open streams of the key end within a second with KEY_REVOKED.",
      reasons: ["KEY_NOT_FOUND"],
    })
    .input(Revoke)
    .output(Key)
    .mutation(async (opts) => runOnce(opts, revokePlatformKey)),
});
