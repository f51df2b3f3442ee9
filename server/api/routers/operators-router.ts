import { z } from "zod";
import { issueOperator } from "../../keys/issue-operator.ts";
import { Key } from "../../keys/key-view.ts";
import { listOperators } from "../../keys/list-operators.ts";
import { revokeOperator } from "../../keys/revoke-operator.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";
import { Cursor, Limit, pageOf } from "./field-schemas.ts";
import { IssuedKey, issueFields, revokeFields } from "./key-schemas.ts";

const Issue = z.strictObject(issueFields);
const List = z.strictObject({ cursor: Cursor, limit: Limit }).prefault({});
const Revoke = z.strictObject(revokeFields);

export const operatorsRouter = t.router({
  issue: operatorProcedure
    .meta({
      summary: "Issues an operator key, which may make every call.",
      description:
        "The name stands in the audit log, so no other key that is not revoked may have it, in any case of letters. `expiresAt` in the past is INVALID_INPUT.",
      reasons: ["OPERATOR_NAME_EXISTS"],
    })
    .input(Issue)
    .output(IssuedKey)
    .mutation(async (opts) => runOnce(opts, issueOperator)),
  list: operatorProcedure
    .meta({
      summary: "Lists the operator keys.",
      description:
        "In the order of their issue, with revoked and expired keys, without plain texts. The bootstrap key is in the configuration, and so not in the list.",
    })
    .input(List)
    .output(pageOf(Key))
    .query(async ({ ctx, input }) => listOperators(ctx.call, input)),
  // A leaked key must be revocable at any time, also while the replica drains.
  revoke: operatorProcedure
    .meta({
      whileDraining: true,
      summary: "Revokes an operator key, at once or after a grace period.",
      description:
        "A revoked key is a success. Of two revocations the earlier instant counts. Open streams of the key end within a second with KEY_REVOKED. The bootstrap key cannot be revoked here: change the configuration.",
      reasons: ["KEY_NOT_FOUND"],
    })
    .input(Revoke)
    .output(Key)
    .mutation(async (opts) => runOnce(opts, revokeOperator)),
});
