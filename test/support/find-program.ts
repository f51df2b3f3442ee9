import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

/** Daemons such as nginx are here, which is not in the path of every user. */
const ADMIN_FOLDERS = ["/usr/sbin", "/sbin"];

/**
 * The path of a program of the system. undefined: it is not installed, and a line says which tests are skipped. Use:
 * `test.skipIf(curl === undefined)`.
 *
 * @throws if the program is missing although REQUIRE_PROGRAMS=1 requires it.
 */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), ...ADMIN_FOLDERS];
  const found = folders.map((folder) => join(folder, name)).find(isExecutable);
  if (found !== undefined) return found;
  const missing = `${name} is not installed`;
  if (process.env["REQUIRE_PROGRAMS"] === "1") throw new Error(`REQUIRE_PROGRAMS=1, and ${missing}`);
  console.warn(`${missing}: the tests that need it are skipped.`);
  return undefined;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
