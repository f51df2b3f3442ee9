const DIGEST_PATTERN = /@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-f]{32,}$/;
const IMAGE_ID_PATTERN = /^(?:sha256:)?[0-9a-f]{64}$/;
const TAG_PATTERN = /^[^:]+:(?<tag>\w[\w.-]{0,127})$/;

/**
 * Whether the image names one version: a digest, an image id, or a tag other than `latest`. A colon before the last
 * slash belongs to the port of a registry.
 */
export function isPinnedImage(image: string): boolean {
  if (image.includes("@")) return DIGEST_PATTERN.test(image);
  if (IMAGE_ID_PATTERN.test(image)) return true;
  const lastPart = image.slice(image.lastIndexOf("/") + 1);
  const tag = TAG_PATTERN.exec(lastPart)?.groups?.["tag"];
  return tag !== undefined && tag !== "latest";
}
