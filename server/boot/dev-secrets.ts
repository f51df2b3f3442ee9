import { randomBytes } from "node:crypto";
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { resolve } from "node:path";
import { z } from "zod";
import { createKey } from "../keys/key-format.ts";
import { generateMasterKeys } from "../keys/keyring.ts";

const DevSecrets = z.object({
  masterKeys: z.string(),
  adminKey: z.string(),
  /** Whether a start that got as far as serving has shown the admin key. */
  isShown: z.boolean(),
});
export type DevSecrets = z.infer<typeof DevSecrets>;

/** The keys of an installation that was given none: made once, kept in the data directory for its owner's eyes only. */
export async function ensureDevSecrets(dataDir: string): Promise<DevSecrets> {
  const text = await readFile(toSecretsPath(dataDir), "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text !== undefined) return DevSecrets.parse(JSON.parse(text));
  const secrets = {
    masterKeys: generateMasterKeys(),
    adminKey: createKey("operator").plaintext,
    isShown: false,
  };
  await writeSecrets(dataDir, secrets);
  return secrets;
}

/** From now on the admin key is not shown any more. */
export async function markSecretsShown(dataDir: string): Promise<void> {
  await writeSecrets(dataDir, { ...(await ensureDevSecrets(dataDir)), isShown: true });
}

async function writeSecrets(dataDir: string, secrets: DevSecrets): Promise<void> {
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const draft = `${toSecretsPath(dataDir)}.${randomBytes(6).toString("hex")}`;
  await writeFile(draft, JSON.stringify(secrets), { mode: 0o600, flush: true });
  await chmod(draft, 0o600);
  await rename(draft, toSecretsPath(dataDir));
}

export function toSecretsPath(dataDir: string): string {
  return resolve(dataDir, "secrets.json");
}
