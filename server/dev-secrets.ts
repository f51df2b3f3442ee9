import { randomBytes } from "node:crypto";
import { chmod, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { createKey } from "./keys/key-format.ts";
import { generateMasterKeys } from "./keys/keyring.ts";

const DevSecrets = z.object({ masterKeys: z.string(), adminKey: z.string() });

export interface DevSecrets extends z.infer<typeof DevSecrets> {
  /** True the first time: then, and only then, the admin key is shown. */
  created: boolean;
}

/** The keys of an installation that was given none: made once, kept in the data directory for its owner's eyes only. */
export async function ensureDevSecrets(dataDir: string): Promise<DevSecrets> {
  const path = join(dataDir, "secrets.json");
  const text = await readFile(path, "utf8").catch((error: unknown) => {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  });
  if (text !== undefined) return { ...DevSecrets.parse(JSON.parse(text)), created: false };
  const secrets = { masterKeys: generateMasterKeys(), adminKey: createKey("operator").plaintext };
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  const draft = `${path}.${randomBytes(6).toString("hex")}`;
  await writeFile(draft, JSON.stringify(secrets), { mode: 0o600, flush: true });
  await chmod(draft, 0o600);
  await rename(draft, path);
  return { ...secrets, created: true };
}
