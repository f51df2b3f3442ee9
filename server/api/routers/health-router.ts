import { z } from "zod";
import { publicProcedure } from "../trpc/procedures.ts";
import { SUBSYSTEM_STATES } from "../http/readiness.ts";
import { t } from "../trpc/trpc.ts";

export const ReadinessSchema = z
  .object({
    ok: z.boolean().describe("Whether calls can be served."),
    subsystems: z
      .record(z.string(), z.enum(SUBSYSTEM_STATES))
      .describe(
        "The state of each subsystem by its name. `ok`; `degraded`: calls work with limits; `draining`: this replica takes no new work; `failed`: calls cannot be served.",
      ),
  })
  .meta({ id: "Readiness", description: "Whether this replica can serve calls." });
const procedure = publicProcedure.input(z.strictObject({}).optional()).output(ReadinessSchema);

export const healthRouter = t.router({
  live: procedure
    .meta({ summary: "Answers while the process lives." })
    .query(() => ({ ok: true, subsystems: { process: "ok" as const } })),
  ready: procedure
    .meta({
      summary: "Tells whether this replica can serve calls.",
      description: "The answer has HTTP status 200 either way. `GET /readyz` answers 503 when `ok` is false.",
    })
    .query(async ({ ctx }) => ctx.readiness()),
});
