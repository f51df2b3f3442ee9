import { toTurnHour } from "../../../db/data-keys.ts";
import type { StoredChunk } from "../../../db/log-chunk.ts";
import { QUESTION_MARK, type AppendedChunk, type TurnAppend } from "../../../db/turn-events.ts";
import type { TurnKey, TurnRow } from "../../../db/turns.ts";
import type { Config } from "../../config/config.ts";
import { toErrorMessage } from "../../errors.ts";
import { openBytes, sealParts } from "../../keys/seal-bytes.ts";
import type { Log } from "../../log.ts";
import type { LiveTurn, TurnCommit } from "../model/live-turn.ts";
import { parseEnd, type TurnEnd } from "../model/turn-end.ts";
import type { DataKey, DataKeys } from "./data-keys.ts";
import type { ReadChunk } from "./log-batches.ts";

interface TurnSealsOptions {
  config: Pick<Config, "sealTurns">;
  dataKeys: Pick<DataKeys, "findOwn" | "prepare" | "findKnown" | "find" | "reportMissing" | "keep">;
  log: Pick<Log, "error">;
}

const VERSION = 1;
const FLAG_QUESTION = 1;
const ID_BYTES = 16;
const HEADER_BYTES = 2 + ID_BYTES;

/** The parts of an end that may repeat what the engine or the caller has said. */
type SecretPart = Pick<TurnEnd, "message" | "engineError">;
const REMOVED: SecretPart = {
  message: "the message was removed with the events of the turn",
  engineError: null,
};

/**
 * Seals what the database stores of a turn's content: the events of each commit, and the words of its end. Opens what any
 * replica has sealed, whether sealing is on or off.
 *
 *   byte 0: version │ byte 1: 1 if the events ask or answer a question │ 16 bytes: data key id │ nonce, ciphertext, tag
 */
export class TurnSeals {
  readonly #options: TurnSealsOptions;
  /** A repeated commit must write the same end. */
  readonly #ends = new WeakMap<LiveTurn, string>();

  constructor(options: TurnSealsOptions) {
    this.#options = options;
  }

  /** What a commit writes: the same, unless sealing is on. Stores a data key before its first use. */
  async seal(batch: readonly TurnCommit[]): Promise<readonly TurnAppend[]> {
    if (!this.#options.config.sealTurns) return batch;
    const hours = batch.map(({ turn }) => toHour(turn));
    for (const hour of new Set(hours)) await this.#options.dataKeys.prepare(hour);
    return batch.map((commit, index) => this.#sealCommit(commit, this.#getOwnKey(hours[index] ?? "")));
  }

  /** Call this when the database answers again: its crash may have removed the data keys. */
  async keepKeys(): Promise<void> {
    await this.#options.dataKeys.keep();
  }

  /** Opens rows of one turn. Rows that cannot be opened have no events. */
  async open(turn: TurnKey, chunks: readonly StoredChunk[]): Promise<ReadChunk[]> {
    const opened: ReadChunk[] = [];
    for (const { firstSeq, lastSeq, events, sealed } of chunks) {
      const text =
        sealed === null ? events : await this.#openEvents(sealed, toRowName(turn, { firstSeq, lastSeq }));
      opened.push({ firstSeq, lastSeq, events: text });
    }
    return opened;
  }

  /** The end of a turn; null while the turn is live. */
  async readEnd(row: TurnKey & Pick<TurnRow, "end">): Promise<TurnEnd | null> {
    if (row.end === null) return null;
    const { sealed, ...end } = parseEnd(row.end) as TurnEnd & { sealed?: string };
    if (sealed === undefined) return end;
    const text = await this.#open(Buffer.from(sealed, "base64"), toEndName(row));
    return { ...end, ...(text === null ? REMOVED : (JSON.parse(text) as SecretPart)) };
  }

  #sealCommit(commit: TurnCommit, key: DataKey): TurnAppend {
    const chunks = commit.chunks.map((chunk) => ({ ...chunk, sealed: sealChunk(commit, chunk, key) }));
    return { ...commit, chunks, end: commit.end && this.#sealEnd(commit, key) };
  }

  #sealEnd({ turn, ...commit }: TurnCommit, key: DataKey): string {
    const known = this.#ends.get(turn);
    if (known !== undefined) return known;
    const plain = commit.end ?? "";
    const end = hasSecrets(parseEnd(plain)) ? toSealedEnd(commit, plain, key) : plain;
    this.#ends.set(turn, end);
    return end;
  }

  #getOwnKey(hour: string): DataKey {
    const key = this.#options.dataKeys.findOwn(hour);
    if (key === undefined) throw new Error(`there is no data key for the hour ${hour}`);
    return key;
  }

  async #openEvents(sealed: Buffer, name: string): Promise<string | null> {
    const text = await this.#open(sealed, name);
    // The events of an hour go before its data key does. The ends of turns stay longer, so they report nothing.
    if (text === null && this.#options.dataKeys.findKnown(toId(sealed)) === undefined) {
      this.#options.dataKeys.reportMissing(toId(sealed));
    }
    return text;
  }

  /** null: the data key is gone, or the bytes are damaged or belong to another row. */
  async #open(sealed: Buffer, name: string): Promise<string | null> {
    const id = toId(sealed);
    const key = this.#options.dataKeys.findKnown(id) ?? (await this.#options.dataKeys.find(id));
    if (key === undefined) return null;
    try {
      return openBytes(key.key, sealed.subarray(HEADER_BYTES), toAssociatedData(sealed, name)).toString(
        "utf8",
      );
    } catch (error) {
      this.#options.log.error({ row: name, error: toErrorMessage(error) }, "sealed turn content is damaged");
      return null;
    }
  }
}

function sealChunk(turn: TurnKey, chunk: AppendedChunk, key: DataKey): Buffer {
  const flags = chunk.events.includes(QUESTION_MARK) ? FLAG_QUESTION : 0;
  return toSealed(key, flags, { text: chunk.events, name: toRowName(turn, chunk) });
}

function hasSecrets({ message, engineError }: SecretPart): boolean {
  return message !== null || engineError !== null;
}

function toSealedEnd(turn: TurnKey, plain: string, key: DataKey): string {
  const end = parseEnd(plain);
  const secret: SecretPart = { message: end.message, engineError: end.engineError };
  const sealed = toSealed(key, 0, { text: JSON.stringify(secret), name: toEndName(turn) });
  return JSON.stringify({ ...end, message: null, engineError: null, sealed: sealed.toString("base64") });
}

function toSealed(key: DataKey, flags: number, { text, name }: { text: string; name: string }): Buffer {
  const header = Buffer.from([VERSION, flags, ...Buffer.from(key.id.replaceAll("-", ""), "hex")]);
  return Buffer.concat([header, ...sealParts(key.key, text, toAssociatedData(header, name))]);
}

function toAssociatedData(sealed: Buffer, name: string): string {
  return `${sealed.toString("hex", 0, HEADER_BYTES)}:${name}`;
}

function toId(sealed: Buffer): string {
  const hex = sealed.toString("hex", 2, HEADER_BYTES);
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function toHour(turn: LiveTurn): string {
  if (turn.record === undefined) throw new Error("a turn without a row has nothing to commit");
  return toTurnHour(turn.record.startedAt);
}

function toRowName(turn: TurnKey, { firstSeq, lastSeq }: Pick<StoredChunk, "firstSeq" | "lastSeq">): string {
  return `turn_events:${toTurnName(turn)}:${firstSeq}:${lastSeq}`;
}

function toEndName(turn: TurnKey): string {
  return `turns.end:${toTurnName(turn)}`;
}

/** Callers may write a UUID in either case. */
function toTurnName({ productId, turnId }: TurnKey): string {
  return `${productId}/${turnId}`.toLowerCase();
}
