import { z } from "zod";
import { AUDIT_ACTIONS } from "../../audit/audit-entry.ts";
import { AuditRow } from "../../audit/audit-row.ts";
import { listAudit } from "../../audit/list-audit.ts";
import { AuditHead, getAuditHead } from "../../audit/audit-head.ts";
import { AuditVerdict, verifyAudit } from "../../audit/verify-audit.ts";
import { Cursor, Limit, pageOf, Seq, UserId } from "./field-schemas.ts";
import { auditProcedure } from "../trpc/procedures.ts";
import { t } from "../trpc/trpc.ts";

const List = z
  .strictObject({
    userId: UserId.optional().describe(
      "Only rows about this user. Without it, rows about every user and about none.",
    ),
    action: z
      .enum(AUDIT_ACTIONS)
      .optional()
      .describe("Only rows of this action. Without it, rows of every action."),
    fromSeq: Seq.optional().describe("Only rows with this number or a higher one. Without it, all rows."),
    cursor: Cursor,
    limit: Limit,
  })
  .prefault({});
const KnownHead = z
  .strictObject({
    scope: z.string().max(128).optional().describe("Its chain. Without it, the chain of this call."),
    seq: Seq.describe("The number of its row."),
    hash: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .describe("The hash of its row."),
    at: z.string().max(64).optional().describe("Its instant, which its MAC covers."),
    mac: z
      .string()
      .max(256)
      .nullish()
      .describe(
        "Its MAC. Without it, or if its master key was dropped, only the row and its hash are checked.",
      ),
  })
  .describe("An answer of `audit.head` that was kept elsewhere. The chain must still contain its row.");
const Verify = z
  .strictObject({
    fromSeq: Seq.min(1).optional().describe("The first row to check. Without it, row 1."),
    toSeq: Seq.min(1).optional().describe("The last row to check. Without it, the last row of the chain."),
    knownHead: KnownHead.optional(),
  })
  .prefault({});
const Head = z.strictObject({}).prefault({});

export const auditRouter = t.router({
  list: auditProcedure
    .meta({
      summary: "Lists rows of the audit log, newest first.",
      description:
        "A platform key reads its product's log. An operator names a product by slug or id, also a removed one; without `product`, the log of the platform itself.",
    })
    .input(List)
    .output(pageOf(AuditRow))
    .query(async ({ ctx, input }) => listAudit(ctx.call, { ...input, scope: ctx.auditScope })),
  verify: auditProcedure
    .meta({
      summary: "Checks the hash chain of the audit log.",
      description: "Stops at the first bad row. Which log is checked follows the same rules as `audit.list`.",
    })
    .input(Verify)
    .output(AuditVerdict)
    .query(async ({ ctx, input, signal }) => {
      using _turn = await ctx.call.auditWalks.take(ctx.auditScope, signal);
      return await verifyAudit(ctx.call, { ...input, scope: ctx.auditScope });
    }),
  head: auditProcedure
    .meta({
      summary: "Gives the end of the audit chain, to keep elsewhere.",
      description:
        "`audit.verify` with the kept head finds what the database alone cannot show: a tail that was cut off, and a chain that was written anew. Which log it is follows the same rules as `audit.list`.",
    })
    .input(Head)
    .output(AuditHead)
    .query(async ({ ctx, signal }) => {
      using _turn = await ctx.call.auditWalks.take(ctx.auditScope, signal);
      return await getAuditHead(ctx.call, { scope: ctx.auditScope });
    }),
});
