import { z } from "zod";
import { AUDIT_ACTIONS } from "../../audit/audit-entry.ts";
import { AuditRow } from "../../audit/audit-row.ts";
import { listAudit } from "../../audit/list-audit.ts";
import { AuditVerdict, verifyAudit } from "../../audit/verify-audit.ts";
import { Cursor, Limit, pageOf, Seq, UserId } from "./field-schemas.ts";
import { auditProcedure } from "../trpc/procedures.ts";
import { t } from "../trpc/trpc.ts";

const List = z
  .strictObject({
    userId: UserId.optional(),
    action: z.enum(AUDIT_ACTIONS).optional(),
    fromSeq: Seq.optional(),
    cursor: Cursor,
    limit: Limit,
  })
  .prefault({});
const Verify = z.strictObject({ fromSeq: Seq.min(1).optional(), toSeq: Seq.min(1).optional() }).prefault({});

export const auditRouter = t.router({
  list: auditProcedure
    .input(List)
    .output(pageOf(AuditRow))
    .query(async ({ ctx, input }) => listAudit(ctx.call, { ...input, scope: ctx.auditScope })),
  verify: auditProcedure
    .input(Verify)
    .output(AuditVerdict)
    .query(async ({ ctx, input }) => verifyAudit(ctx.call, { ...input, scope: ctx.auditScope })),
});
