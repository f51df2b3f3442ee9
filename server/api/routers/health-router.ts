import { z } from "zod";
import { publicProcedure } from "../trpc/procedures.ts";
import { SUBSYSTEM_STATES } from "../http/readiness.ts";
import { t } from "../trpc/trpc.ts";

const NoInput = z.strictObject({}).optional();
const Health = z.object({ ok: z.boolean(), subsystems: z.record(z.string(), z.enum(SUBSYSTEM_STATES)) });

export const healthRouter = t.router({
  live: publicProcedure
    .input(NoInput)
    .output(Health)
    .query(() => ({ ok: true, subsystems: { process: "ok" as const } })),
  ready: publicProcedure
    .input(NoInput)
    .output(Health)
    .query(async ({ ctx }) => ctx.readiness()),
});
