import { z } from "zod";
import { revealEngineKey } from "../../engines/operations/reveal-engine-key.ts";
import { rotateEngineKey } from "../../engines/operations/rotate-engine-key.ts";
import { resealRows } from "../../master-keys/reseal-rows.ts";
import { DeadlineMs, IdempotencyKey, UserId } from "./field-schemas.ts";
import { BOOTING } from "./reason-groups.ts";
import { operatorProcedure, platformProcedure } from "../trpc/procedures.ts";
import { runOnce } from "../trpc/run-once.ts";
import { t } from "../trpc/trpc.ts";

const Rotate = z.strictObject({
  userId: UserId,
  when: z
    .enum(["idle", "now"])
    .default("idle")
    .describe(
      "`idle`: wait until no turn and no call uses the engine; at the deadline the call fails with ENGINE_BUSY and nothing is changed. `now`: interrupt them.",
    ),
  deadlineMs: DeadlineMs.default(60_000).describe(
    "How long `idle` waits for turns and calls, in milliseconds. The rotation itself is waited for after that.",
  ),
  idempotencyKey: IdempotencyKey,
});
const RotatedKey = z.object({
  apiKey: z.string().describe("The new engine key. The key before it is refused from now on."),
  generation: z.int().describe("The engine's new generation, because a rotation starts a new process."),
});
const Reveal = z.strictObject({ userId: UserId });
const RevealedKey = z.object({ apiKey: z.string().describe("The engine key, in plain text.") });

const Reseal = z
  .strictObject({
    batch: z
      .int()
      .min(1)
      .max(10_000)
      .default(1_000)
      .describe("The most rows that this call moves. A call with a thousand takes about a second."),
    idempotencyKey: IdempotencyKey,
  })
  .prefault({});
const ResealedRows = z.object({
  resealed: z.int().describe("How many rows this call has moved to the first master key."),
  remaining: z
    .int()
    .describe("How many rows another call has to move. 0: the other master keys can be removed."),
  unverified: z
    .int()
    .describe(
      "How many rows this call met that were changed outside of the service. They cannot be moved, and they are refused with any key.",
    ),
});

export const engineKeysRouter = t.router({
  rotate: platformProcedure("lifecycle")
    .meta({
      summary: "Gives a user's engine a new engine key.",
      description:
        "The engine's process is replaced, because an engine gets the hash of its key when it starts.",
      reasons: [...BOOTING, "ENGINE_BUSY"],
    })
    .input(Rotate)
    .output(RotatedKey)
    .mutation(async (opts) => runOnce(opts, rotateEngineKey)),
  reveal: platformProcedure("keys")
    .meta({
      whileDraining: true,
      summary: "Returns the engine key that a user's engine accepts now.",
      description: "Each call is in the audit log.",
      reasons: ["ENGINE_NOT_FOUND"],
    })
    .input(Reveal)
    .output(RevealedKey)
    .mutation(async ({ ctx, input }) => revealEngineKey(ctx.call, { ...input, productId: ctx.productId })),
  // An operator must be able to leave a leaked master key at any time, also while the replica drains.
  reseal: operatorProcedure
    .meta({
      whileDraining: true,
      summary: "Moves sealed values and MACs to the first master key.",
      description:
        "Repeat the call until `remaining` is 0. Then the other keys of ORCH_MASTER_KEYS can be removed. The service works all the time, and a call that is cut off loses nothing.",
    })
    .input(Reseal)
    .output(ResealedRows)
    .mutation(async (opts) => runOnce(opts, resealRows)),
});
