import { z } from "zod";
import { SCOPES } from "../../../db/schema.ts";
import { issuePlatformKey } from "../../keys/issue-platform-key.ts";
import { Key } from "../../keys/key-view.ts";
import { listPlatformKeys } from "../../keys/list-platform-keys.ts";
import { revokePlatformKey } from "../../keys/revoke-platform-key.ts";
import { Cursor, Limit, pageOf, Uuid } from "./field-schemas.ts";
import { IssuedKey, issueFields, revokeFields } from "./key-schemas.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const Issue = z.strictObject({
  productId: Uuid.describe("The product that the key acts for."),
  scopes: z
    .array(z.enum(SCOPES))
    .min(1)
    .max(SCOPES.length)
    .optional()
    .describe("What the key may do. Without it, everything but `keys`."),
  ...issueFields,
});
const List = z.strictObject({
  productId: Uuid.describe("The product whose keys to list."),
  cursor: Cursor,
  limit: Limit,
});
const Revoke = z.strictObject({
  productId: Uuid.optional().describe(
    "Revoke the key only if it belongs to this product. Without it, a key of any product.",
  ),
  ...revokeFields,
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
