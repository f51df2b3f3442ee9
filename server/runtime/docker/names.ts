import { RuntimeFailure } from "../engine-runtime.ts";

// Names become parts of request paths. The daemon redirects paths with empty or dotted segments, and docker-modem
// follows a redirect over the network to any address, and loses its errors. So no name may have such a segment.

/** Whether a container or volume can have this name or id. */
export function isObjectName(name: string): boolean {
  return /^[A-Za-z0-9][\w.-]*$/.test(name);
}

export function assertObjectName(name: string): void {
  if (isObjectName(name)) return;
  const problem = `"${name}" cannot be the name of a Docker object`;
  throw new RuntimeFailure("refused", `${problem}: use letters, digits, "_", "." and "-"`);
}

/** Whether this can be a tag, a digest or an id of an image. */
export function isImageName(image: string): boolean {
  return /^[A-Za-z0-9][\w.:@-]*(\/[A-Za-z0-9][\w.:@-]*)*$/.test(image);
}
