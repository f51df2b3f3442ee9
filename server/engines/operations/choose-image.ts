import { isPinnedImage } from "../model/pinned-image.ts";
import type { EngineSpec } from "../../../db/schema.ts";
import { DomainError } from "../../errors.ts";
import { toDefaultImage } from "../model/engine-spec.ts";
import type { OperationContext } from "./operation-context.ts";

type ImageChoice = Pick<EngineSpec, "image" | "imageFrom">;

/** The images that the caller and the product's policy name. */
interface ImageRequest {
  caller: string | undefined;
  policy: string | undefined;
}

/**
 * The caller's image, else the product's, else the default. Throws IMAGE_NOT_ALLOWED for an image on none of the
 * lists: a tenant must not run any image with the provider keys. Throws IMAGE_NOT_PINNED for an image whose content
 * may change.
 */
export function chooseImage(
  ctx: Pick<OperationContext, "config" | "runtime">,
  request: ImageRequest,
): ImageChoice {
  const { config } = ctx;
  const defaultImage = toDefaultImage(config);
  const choice = toChoice(request, defaultImage);
  const { image } = choice;
  if (![defaultImage, request.policy, ...config.engineImageAllow].includes(image)) {
    throw new DomainError(
      "IMAGE_NOT_ALLOWED",
      `the image "${image}" is not allowed: use the default or the product's image, or add it to ORCH_ENGINE_IMAGE_ALLOW`,
    );
  }
  if (ctx.runtime.kind !== "docker") return choice;
  if (choice.imageFrom === "default" && config.engineImage === undefined) {
    throw new DomainError("IMAGE_NOT_PINNED", "no image is configured: name one, or set ORCH_ENGINE_IMAGE");
  }
  if (!config.allowUnpinnedImage && !isPinnedImage(image)) {
    throw new DomainError(
      "IMAGE_NOT_PINNED",
      `the image "${image}" is not pinned: name a version tag or a digest`,
    );
  }
  return choice;
}

function toChoice({ caller, policy }: ImageRequest, defaultImage: string): ImageChoice {
  if (caller !== undefined) return { image: caller, imageFrom: "caller" };
  if (policy !== undefined) return { image: policy, imageFrom: "policy" };
  return { image: defaultImage, imageFrom: "default" };
}
