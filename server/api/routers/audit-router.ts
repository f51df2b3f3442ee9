import { z } from "zod";
import { ACTOR_KINDS, AUDIT_ACTIONS } from "../../audit/audit-entry.ts";
import { listAudit } from "../../audit/list-audit.ts";
import { verifyAudit } from "../../audit/verify-audit.ts";
import { Cursor, Limit, Seq, UserId } from "./field-schemas.ts";
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
const AuditRowSchema = z.object({
  seq: z.number(),
  at: z.string(),
  actor: z.object({ kind: z.enum(ACTOR_KINDS), id: z.string(), name: z.string() }),
  action: z.string(),
  userId: z.string().nullable(),
  engineId: z.string().nullable(),
  requestId: z.string().nullable(),
  metadata: z.record(z.string(), z.unknown()),
  durationMs: z.number().nullable(),
  prevHash: z.string(),
  hash: z.string(),
});
const AuditPage = z.object({ items: z.array(AuditRowSchema), nextCursor: z.string().nullable() });
const Verify = z.strictObject({ fromSeq: Seq.min(1).optional(), toSeq: Seq.min(1).optional() }).prefault({});
const Verdict = z.object({
  ok: z.boolean(),
  checked: z.number(),
  headSeq: z.number(),
  headHash: z.string(),
  firstBadSeq: z.number().optional(),
});

export const auditRouter = t.router({
  list: auditProcedure
    .input(List)
    .output(AuditPage)
    .query(async ({ ctx, input }) => listAudit(ctx.call, { ...input, scope: ctx.auditScope })),
  verify: auditProcedure
    .input(Verify)
    .output(Verdict)
    .query(async ({ ctx, input }) => verifyAudit(ctx.call, { ...input, scope: ctx.auditScope })),
});
