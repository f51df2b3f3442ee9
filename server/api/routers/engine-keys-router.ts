import { z } from "zod";
import { revealEngineKey } from "../../engines/operations/reveal-engine-key.ts";
import { rotateEngineKey } from "../../engines/operations/rotate-engine-key.ts";
import { DeadlineMs, IdempotencyKey, UserId } from "./field-schemas.ts";
import { platformProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const Rotate = z.strictObject({
  userId: UserId,
  when: z.enum(["idle", "now"]).default("idle"),
  deadlineMs: DeadlineMs.default(60_000),
  idempotencyKey: IdempotencyKey,
});
const RotatedKey = z.object({ apiKey: z.string(), generation: z.number() });
const Reveal = z.strictObject({ userId: UserId });
const RevealedKey = z.object({ apiKey: z.string() });

export const engineKeysRouter = t.router({
  rotate: platformProcedure("lifecycle")
    .input(Rotate)
    .output(RotatedKey)
    .mutation(async (opts) => runOnce(opts, rotateEngineKey)),
  reveal: platformProcedure("keys")
    .meta({ whileDraining: true })
    .input(Reveal)
    .output(RevealedKey)
    .mutation(async ({ ctx, input }) => revealEngineKey(ctx.call, { ...input, productId: ctx.productId })),
});
