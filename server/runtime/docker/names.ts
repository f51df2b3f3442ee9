import { RuntimeFailure } from "../engine-runtime.ts";

// Names become parts of the path that the daemon is asked for. It redirects a path with empty or dotted
// segments, and docker-modem follows a redirect to wherever it leads, by the network, with nobody to hear the
// error. So none of these may have any.
const OBJECT_NAME = /^[A-Za-z0-9][\w.-]*$/;
const IMAGE_NAME = /^[A-Za-z0-9][\w.:@-]*(\/[A-Za-z0-9][\w.:@-]*)*$/;

/** Whether a container or volume could have that name or id. */
export function isObjectName(name: string): boolean {
  return OBJECT_NAME.test(name);
}

export function assertObjectName(name: string): void {
  if (!isObjectName(name)) throw new RuntimeFailure("refused", `the daemon has no such names: ${name}`);
}

/** Whether it is a tag, a digest or an id. */
export function isImageName(image: string): boolean {
  return IMAGE_NAME.test(image);
}
