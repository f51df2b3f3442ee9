import { makeDirectory } from "../../db/make-directory.ts";
import { resolve } from "node:path";
import { z } from "zod";
import { readJsonFile, writeJsonFile } from "../json/json-file.ts";
import { createKey } from "../keys/key-format.ts";
import { generateMasterKeys } from "../keys/keyring.ts";

const DevSecrets = z.object({
  masterKeys: z.string(),
  adminKey: z.string(),
  /** Whether a start has shown the operator key. */
  isShown: z.boolean(),
});
export type DevSecrets = z.infer<typeof DevSecrets>;

/**
 * The keys of a development start whose configuration has none. They are generated once, and kept in a file of the data
 * directory that only its owner may read.
 */
export async function ensureDevSecrets(dataDir: string): Promise<DevSecrets> {
  const stored = await readJsonFile(toSecretsPath(dataDir));
  if (stored !== undefined) return DevSecrets.parse(stored);
  const secrets = {
    masterKeys: generateMasterKeys(),
    adminKey: createKey("operator").plaintext,
    isShown: false,
  };
  await writeSecrets(dataDir, secrets);
  return secrets;
}

/** Later starts do not show the operator key again. */
export async function markSecretsShown(dataDir: string): Promise<void> {
  await writeSecrets(dataDir, { ...(await ensureDevSecrets(dataDir)), isShown: true });
}

async function writeSecrets(dataDir: string, secrets: DevSecrets): Promise<void> {
  await makeDirectory(dataDir, 0o700);
  await writeJsonFile(toSecretsPath(dataDir), secrets);
}

export function toSecretsPath(dataDir: string): string {
  return resolve(dataDir, "secrets.json");
}
