import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { DataKeyRow } from "../../../db/data-keys.ts";
import { makeDirectory } from "../../../db/make-directory.ts";
import { isMissing, readJsonFile, writeJsonFile } from "../../json/json-file.ts";

const DataKeyFile = z.object({ id: z.uuid(), hour: z.string(), sealed: z.string() });
const SUFFIX = ".json";

/**
 * The data keys of this replica in a folder of its own, because a crash of Postgres empties their table. A backup must not
 * have these files: they are removed when their hour is retired.
 */
export class DataKeyFiles {
  readonly #folder: string;

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** Once this returns, a power cut cannot undo it. */
  async write(row: DataKeyRow): Promise<void> {
    await makeDirectory(this.#folder, 0o700);
    await writeJsonFile(this.#toPath(row.id), row);
  }

  async list(): Promise<DataKeyRow[]> {
    const rows: DataKeyRow[] = [];
    for (const name of await this.#listNames()) {
      // A file that is cut or not ours has no key.
      const file = await readJsonFile(join(this.#folder, name)).catch(() => undefined);
      const row = DataKeyFile.safeParse(file);
      if (row.success) rows.push(row.data);
    }
    return rows;
  }

  async remove(id: string): Promise<void> {
    await rm(this.#toPath(id), { force: true });
  }

  async #listNames(): Promise<string[]> {
    try {
      return (await readdir(this.#folder)).filter((name) => name.endsWith(SUFFIX));
    } catch (error) {
      if (isMissing(error)) return [];
      throw error;
    }
  }

  #toPath(id: string): string {
    return join(this.#folder, `${id}${SUFFIX}`);
  }
}
