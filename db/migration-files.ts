import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";

export interface Migration {
  readonly tag: string;
  /** When it was generated, in milliseconds; recorded with the hash. */
  readonly when: number;
  /** Of the file's text: an applied migration that was edited afterwards is another one. */
  readonly hash: string;
  readonly statements: readonly string[];
}

export const migrationsDir = fileURLToPath(new URL("../migrations", import.meta.url));

const Journal = z.object({ entries: z.array(z.object({ tag: z.string(), when: z.number() })) });

/** In the order in which they are applied, which is the journal's. */
export async function readMigrations(dir: string = migrationsDir): Promise<Migration[]> {
  const journal = Journal.parse(JSON.parse(await readFile(join(dir, "meta", "_journal.json"), "utf8")));
  return Promise.all(
    journal.entries.map(async ({ tag, when }) => {
      const text = await readFile(join(dir, `${tag}.sql`), "utf8");
      const hash = createHash("sha256").update(text).digest("hex");
      return { tag, when, hash, statements: text.split("--> statement-breakpoint") };
    }),
  );
}
