import { randomBytes } from "node:crypto";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { isMissing } from "../../json/json-file.ts";

/**
 * Removes a folder below `root`; a missing folder is success. The folder first moves away from its name in one step,
 * so a removal that is cut short leaves no half container or volume behind.
 */
export async function removeFolder(root: string, path: string): Promise<void> {
  const doomed = join(root, `removed-${randomBytes(8).toString("hex")}`);
  try {
    await rename(path, doomed);
  } catch (error) {
    if (isMissing(error)) return;
    throw error;
  }
  await rm(doomed, { recursive: true, force: true, maxRetries: 5 });
}
