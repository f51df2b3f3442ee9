import { createSecretKey, randomBytes, randomUUID, type KeyObject } from "node:crypto";
import {
  countDataKeysToReseal,
  destroyDataKeys,
  findDataKey,
  insertDataKeys,
  listDataKeysToReseal,
  listRetiredHours,
  replaceSealedDataKey,
  type DataKeyRow,
} from "../../../db/data-keys.ts";
import { LRUCache } from "lru-cache";
import type { RawSql } from "../../../db/client.ts";
import { toErrorMessage } from "../../errors.ts";
import type { Keyring } from "../../keys/keyring.ts";
import { SEALING_KEY_BYTES } from "../../keys/seal-bytes.ts";
import type { Log } from "../../log.ts";
import { abortable } from "../../time/abortable.ts";
import type { DataKeyFiles } from "./data-key-files.ts";

export interface DataKeysOptions {
  raw: RawSql;
  keyring: Keyring;
  log: Pick<Log, "error" | "warn">;
  /** undefined: without files, a crash of Postgres and of all replicas at once loses the keys. */
  files?: Pick<DataKeyFiles, "write" | "list" | "remove"> | undefined;
}

export interface DataKey {
  readonly id: string;
  readonly key: KeyObject;
}

const KEEP_TIMEOUT_MS = 2_000;
const MAX_REMEMBERED = 10_000;
/** A replica writes its keys again soon after a crash of Postgres, so a missing key may come back. */
const MISSING_MS = 10_000;
/** Before the ids of all data keys. */
const FIRST_ID = "00000000-0000-0000-0000-000000000000";

interface KnownKey extends DataKey {
  row: DataKeyRow;
}

/**
 * The keys of sealed turn content. Each replica makes a key of its own for each hour in which turns of its own started.
 *
 *   made ─▶ file, if there is a folder ─▶ unlogged table, for other replicas ─▶ seals ─▶ hour retired: destroyed everywhere
 *
 * Neither place is in WAL or in a base backup, so no copy of the database outlives the key.
 */
export class DataKeys {
  readonly #options: DataKeysOptions;
  readonly #known = new Map<string, KnownKey>();
  /** By hour: the key that this replica seals with. */
  readonly #own = new Map<string, DataKey>();
  readonly #making = new Map<string, Promise<void>>();
  readonly #finding = new Map<string, Promise<DataKey | undefined>>();
  /** Keys that were in no place a moment ago. The ends of turns outlive their data keys by weeks. */
  readonly #missing = new LRUCache<string, true>({ max: MAX_REMEMBERED, ttl: MISSING_MS });
  /** Keys whose loss operators have been told. */
  readonly #reported = new LRUCache<string, true>({ max: MAX_REMEMBERED });
  #restoring: Promise<void> | undefined;

  constructor(options: DataKeysOptions) {
    this.#options = options;
  }

  /** The key to seal with; undefined: call `prepare` first. */
  findOwn(hour: string): DataKey | undefined {
    return this.#own.get(hour);
  }

  /** Makes the key to seal with, if there is none. It is stored before it is used. */
  async prepare(hour: string): Promise<void> {
    if (this.#own.has(hour)) return;
    let making = this.#making.get(hour);
    if (making === undefined) {
      making = this.#make(hour).finally(() => this.#making.delete(hour));
      this.#making.set(hour, making);
    }
    await making;
  }

  /** undefined: look it up with `find`. */
  findKnown(id: string): DataKey | undefined {
    return this.#known.get(id);
  }

  /** undefined: the key was destroyed or lost, or no master key of the keyring opens it. */
  async find(id: string): Promise<DataKey | undefined> {
    if (this.#missing.has(id)) return undefined;
    let finding = this.#finding.get(id);
    if (finding === undefined) {
      finding = this.#look(id).finally(() => this.#finding.delete(id));
      this.#finding.set(id, finding);
    }
    return finding;
  }

  /** Tells operators that events cannot be read, once for each key. */
  reportMissing(id: string): void {
    this.#report(id, { dataKeyId: id }, "a data key of turn content is missing");
  }

  /**
   * Destroys the keys of hours whose events are gone: in the table, in files and in memory. Writes the others again, because
   * a crash of Postgres empties the table. Returns how many rows it destroyed.
   */
  async maintain(retentionMs: number): Promise<number> {
    const { raw, files } = this.#options;
    await this.#restore();
    const destroyed = await destroyDataKeys(raw, retentionMs);
    const stored = (await files?.list()) ?? [];
    const hours = new Set([...stored, ...this.#rows()].map(({ hour }) => hour));
    const retired = new Set(await listRetiredHours(raw, [...hours], retentionMs));
    for (const { id, hour } of stored) if (retired.has(hour)) await files?.remove(id);
    for (const { id, hour } of this.#rows()) if (retired.has(hour)) this.#known.delete(id);
    for (const hour of retired) this.#own.delete(hour);
    await this.#insertKnown();
    return destroyed;
  }

  /** Writes the keys again that the table has lost. Never throws, and gives up after two seconds. */
  async keep(): Promise<void> {
    try {
      await abortable(this.#insertKnown(), AbortSignal.timeout(KEEP_TIMEOUT_MS));
    } catch (error) {
      const fields = { error: toErrorMessage(error) };
      this.#options.log.warn(fields, "the data keys of turn content could not be written again");
    }
  }

  /**
   * Seals up to `limit` data keys with the first master key. `remaining` counts those that another call has to seal,
   * `unverified` those that no master key of the ring opens.
   */
  async reseal(limit: number): Promise<{ resealed: number; remaining: number; unverified: number }> {
    const { raw, keyring } = this.#options;
    const done = { resealed: 0, unverified: 0 };
    let afterId = FIRST_ID;
    // A key that does not open takes no place of the limit, or it would stand in the way of the keys behind it.
    while (done.resealed < limit) {
      const page = { afterId, limit: limit - done.resealed };
      const rows = await listDataKeysToReseal(raw, keyring.firstKeyId, page);
      for (const row of rows) {
        const outcome = await this.#reseal(row);
        if (outcome !== "changed") done[outcome] += 1;
      }
      afterId = rows.at(-1)?.id ?? afterId;
      if (rows.length < page.limit) break;
    }
    // Also if the limit is 0: `remaining` decides whether the old master key may be dropped.
    const outdated = await countDataKeysToReseal(raw, keyring.firstKeyId);
    return { ...done, remaining: Math.max(0, outdated - done.unverified) };
  }

  /** `changed`: another call has replaced the sealed text since it was read. */
  async #reseal(row: DataKeyRow): Promise<"resealed" | "unverified" | "changed"> {
    const known = this.#open(row);
    if (known === undefined) return "unverified";
    const newRow = { ...row, sealed: this.#seal(row, known.key.export()) };
    if (!(await replaceSealedDataKey(this.#options.raw, row, newRow.sealed))) return "changed";
    this.#known.set(row.id, { ...known, row: newRow });
    return "resealed";
  }

  async #make(hour: string): Promise<void> {
    const bare = { id: randomUUID(), hour };
    const row = { ...bare, sealed: this.#seal(bare, randomBytes(SEALING_KEY_BYTES)) };
    await this.#writeFile(row);
    await insertDataKeys(this.#options.raw, [row]);
    const known = this.#open(row);
    if (known) this.#own.set(hour, known);
  }

  async #look(id: string): Promise<DataKey | undefined> {
    const known = this.#known.get(id);
    if (known) return known;
    const row = await findDataKey(this.#options.raw, id);
    const found = row === undefined ? await this.#findInFiles(id) : this.#open(row);
    if (found === undefined) this.#missing.set(id, true);
    return found;
  }

  async #findInFiles(id: string): Promise<DataKey | undefined> {
    await this.#restore();
    return this.#known.get(id);
  }

  /** Reads the keys that earlier processes left in files. Seals them with the first master key. */
  async #restore(): Promise<void> {
    this.#restoring ??= this.#readFiles();
    try {
      await this.#restoring;
    } catch (error) {
      this.#restoring = undefined;
      const fields = { error: toErrorMessage(error) };
      this.#options.log.warn(fields, "the files of data keys cannot be read");
    }
  }

  async #readFiles(): Promise<void> {
    const { keyring } = this.#options;
    for (const row of (await this.#options.files?.list()) ?? []) {
      const known = this.#known.get(row.id) ?? this.#open(row);
      if (known === undefined || row.sealed.split(".")[1] === keyring.firstKeyId) continue;
      await this.#writeFile({ ...row, sealed: this.#seal(row, known.key.export()) });
    }
  }

  async #writeFile(row: DataKeyRow): Promise<void> {
    try {
      await this.#options.files?.write(row);
    } catch (error) {
      // Turns must go on. Until the hour is retired, a crash of Postgres and of this process would lose the key.
      const fields = { hour: row.hour, error: toErrorMessage(error) };
      this.#options.log.warn(fields, "a data key could not be written into its file");
    }
  }

  #open(row: DataKeyRow): KnownKey | undefined {
    try {
      const plain = Buffer.from(this.#options.keyring.open(row.sealed, toAssociatedData(row)), "base64");
      const known = { id: row.id, key: createSecretKey(plain), row };
      this.#known.set(row.id, known);
      return known;
    } catch (error) {
      const fields = { dataKeyId: row.id, hour: row.hour, error: toErrorMessage(error) };
      this.#report(row.id, fields, "a data key of turn content cannot be opened");
      return undefined;
    }
  }

  #seal(row: Pick<DataKeyRow, "id" | "hour">, key: Buffer): string {
    return this.#options.keyring.seal(key.toString("base64"), toAssociatedData(row));
  }

  async #insertKnown(): Promise<void> {
    if (this.#known.size > 0) await insertDataKeys(this.#options.raw, this.#rows());
  }

  #rows(): DataKeyRow[] {
    return [...this.#known.values()].map(({ row }) => row);
  }

  #report(id: string, fields: object, message: string): void {
    if (this.#reported.has(id)) return;
    this.#reported.set(id, true);
    this.#options.log.error(fields, message);
  }
}

function toAssociatedData({ id, hour }: Pick<DataKeyRow, "id" | "hour">): string {
  return `data_keys:${id}:${hour}`;
}
