import { z } from "zod";
import { acceptRuntime } from "../../engines/operations/accept-runtime.ts";
import { IdempotencyKey, plainText } from "./field-schemas.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const AcceptRuntime = z.strictObject({
  /** Why the operator accepts this runtime, for the audit log. */
  reason: plainText(500),
  idempotencyKey: IdempotencyKey,
});
const AcceptedRuntime = z.object({
  runtimeHost: z.string(),
  engines: z.number(),
  volumesMissing: z.number(),
});

export const fleetRouter = t.router({
  acceptRuntime: operatorProcedure
    .input(AcceptRuntime)
    .output(AcceptedRuntime)
    .mutation(async (opts) => runOnce(opts, acceptRuntime)),
});
