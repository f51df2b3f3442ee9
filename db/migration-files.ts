import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";

export interface Migration {
  readonly tag: string;
  /** When drizzle-kit generated it, in milliseconds since 1970. The database stores this beside the hash. */
  readonly when: number;
  /** SHA-256 of the file. If an applied migration is edited, it counts as another migration. */
  readonly hash: string;
  readonly statements: readonly string[];
}

export const migrationsDir = fileURLToPath(new URL("../migrations", import.meta.url));

const Journal = z.object({ entries: z.array(z.object({ tag: z.string(), when: z.number() })) });

/** The migrations in the order of the journal, which is the order to apply them in. */
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
