import { isPinnedImage } from "../model/pinned-image.ts";
import type { BaseContext } from "../../context.ts";
import type { EngineRuntime } from "../../runtime/engine-runtime.ts";
import { DomainError } from "../../errors.ts";
import { toDefaultImage } from "../model/engine-spec.ts";

export interface ImageChoice {
  image: string;
  imageFrom: "default" | "policy" | "caller";
}

/**
 * The caller's image, else the product's, else the default. A tenant must not run any image with the provider
 * keys: throws IMAGE_NOT_ALLOWED for one that is on no list, IMAGE_NOT_PINNED for one that may change its content.
 */
export function chooseImage(
  ctx: Pick<BaseContext, "config"> & { runtime: EngineRuntime },
  wanted: { caller: string | undefined; policy: string | undefined },
): ImageChoice {
  const { config } = ctx;
  const standard = toDefaultImage(config);
  const choice = toChoice(wanted, standard);
  const allowed = [
    standard,
    ...config.engineImageAllow,
    ...(wanted.policy === undefined ? [] : [wanted.policy]),
  ];
  if (!allowed.includes(choice.image)) {
    throw new DomainError(
      "IMAGE_NOT_ALLOWED",
      "this image is neither the default, nor the product's, nor on ORCH_ENGINE_IMAGE_ALLOW",
    );
  }
  if (ctx.runtime.kind !== "docker") return choice;
  if (choice.imageFrom === "default" && config.engineImage === undefined) {
    throw new DomainError("IMAGE_NOT_PINNED", "no image is configured: name one, or set ORCH_ENGINE_IMAGE");
  }
  if (!config.allowUnpinnedImage && !isPinnedImage(choice.image)) {
    throw new DomainError("IMAGE_NOT_PINNED", "the image needs a tag other than latest, or a digest");
  }
  return choice;
}

function toChoice(
  wanted: { caller: string | undefined; policy: string | undefined },
  standard: string,
): ImageChoice {
  if (wanted.caller !== undefined) return { image: wanted.caller, imageFrom: "caller" };
  if (wanted.policy !== undefined) return { image: wanted.policy, imageFrom: "policy" };
  return { image: standard, imageFrom: "default" };
}
