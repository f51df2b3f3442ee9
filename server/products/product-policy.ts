import { z } from "zod";
import { isPinnedImage } from "../engines/model/pinned-image.ts";
import type { BaseContext } from "../context.ts";
import { DomainError } from "../errors.ts";

const Seconds = z
  .number()
  .positive()
  .max(365 * 86_400);

/** The limits of a product and its engines. An absent value means unlimited, or the default of the installation. */
export const ProductPolicy = z.strictObject({
  maxEngines: z.int().min(0).max(1_000_000).optional(),
  rateLimitRpm: z.int().min(1).max(1_000_000_000).optional(),
  idle: z.strictObject({ pauseAfterS: Seconds.optional(), stopAfterS: Seconds.optional() }).optional(),
  resources: z
    .strictObject({
      memoryMb: z.int().min(16).max(16_777_216).optional(),
      cpus: z.number().min(0.01).max(1_024).optional(),
      pids: z.int().min(8).max(4_194_304).optional(),
      readOnly: z.boolean().optional(),
    })
    .optional(),
  image: z
    .string()
    .max(500)
    .regex(/^\w[\w./:@-]*$/, { error: "must be the name of an image" })
    .optional(),
});
export type ProductPolicy = z.infer<typeof ProductPolicy>;

/** Throws IMAGE_NOT_PINNED for an image whose content may change. */
export function assertPinned(ctx: Pick<BaseContext, "config">, policy: ProductPolicy): void {
  if (policy.image === undefined || ctx.config.allowUnpinnedImage || isPinnedImage(policy.image)) return;
  const message = `the image "${policy.image}" is not pinned: name a version tag or a digest`;
  throw new DomainError("IMAGE_NOT_PINNED", message, { issues: [{ path: "policy.image", message }] });
}
