import { z } from "zod";
import { acceptRuntime } from "../../engines/operations/accept-runtime.ts";
import { IdempotencyKey, plainText } from "./field-schemas.ts";
import { operatorProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const AcceptRuntime = z.strictObject({
  reason: plainText(500).describe("Why the operator accepts this runtime. The audit log keeps it."),
  idempotencyKey: IdempotencyKey,
});
const AcceptedRuntime = z.object({
  runtimeHost: z.string().describe("The accepted runtime: the machine and its daemon."),
  engines: z.int().describe("How many engines the installation has on it."),
  volumesMissing: z
    .int()
    .describe(
      "How many of these engines have run before and have no volume on this runtime. They become `failed` with `volume_missing`.",
    ),
});

export const fleetRouter = t.router({
  acceptRuntime: operatorProcedure
    .meta({
      summary: "Accepts the runtime that answers now as the one of this installation.",
      description:
        "For a daemon that was replaced or moved. From then on its answers count: an engine without its volume becomes `failed`.",
      reasons: ["RUNTIME_UNCHANGED", "RUNTIME_UNREACHABLE", "RUNTIME_CHANGED"],
    })
    .input(AcceptRuntime)
    .output(AcceptedRuntime)
    .mutation(async (opts) => runOnce(opts, acceptRuntime)),
});
