import { RuntimeFailure } from "../engine-runtime.ts";

/** Whether a container or volume can have this name, which becomes the name of a folder. */
export function isFileName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]{0,200}$/.test(name);
}

/** Refuses every name that could lead out of its folder. */
export function toFileName(name: string): string {
  if (isFileName(name)) return name;
  throw new RuntimeFailure(
    "refused",
    `the name "${name}" is not allowed: use letters, digits, "_", "." and "-"`,
  );
}
