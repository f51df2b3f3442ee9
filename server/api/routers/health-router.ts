import { z } from "zod";
import { publicProcedure } from "../trpc/procedures.ts";
import { SUBSYSTEM_STATES } from "../http/readiness.ts";
import { t } from "../trpc/trpc.ts";

const procedure = publicProcedure
  .input(z.strictObject({}).optional())
  .output(z.object({ ok: z.boolean(), subsystems: z.record(z.string(), z.enum(SUBSYSTEM_STATES)) }));

export const healthRouter = t.router({
  live: procedure.query(() => ({ ok: true, subsystems: { process: "ok" as const } })),
  ready: procedure.query(async ({ ctx }) => ctx.readiness()),
});
