import { RuntimeFailure } from "../engine-runtime.ts";

// Names become parts of request paths. The daemon redirects paths with empty or dotted segments, and docker-modem
// follows a redirect over the network to any address, and loses its errors. So no name may have such a segment.
const OBJECT_NAME = /^[A-Za-z0-9][\w.-]*$/;
const IMAGE_NAME = /^[A-Za-z0-9][\w.:@-]*(\/[A-Za-z0-9][\w.:@-]*)*$/;

/** Whether a container or volume can have this name or id. */
export function isObjectName(name: string): boolean {
  return OBJECT_NAME.test(name);
}

export function assertObjectName(name: string): void {
  if (!isObjectName(name))
    throw new RuntimeFailure(
      "refused",
      `"${name}" cannot be the name of a Docker object: use letters, digits, "_", "." and "-"`,
    );
}

/** Whether this can be a tag, a digest or an id of an image. */
export function isImageName(image: string): boolean {
  return IMAGE_NAME.test(image);
}
