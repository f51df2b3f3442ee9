import { LRUCache } from "lru-cache";
import type { Keyring } from "./keyring.ts";

export const MAX_REMEMBERED = 1_000;

interface OpenedKey {
  sealed: string;
  key: string;
}

/**
 * Engine keys in plain text, for the engines that were called last. Every call to an engine needs its key, and opening
 * it is the most expensive single step of a call.
 */
export class OpenedKeys {
  readonly #keyring: Keyring;
  readonly #opened = new LRUCache<string, OpenedKey>({ max: MAX_REMEMBERED });

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** As `Keyring.open`. A new sealed text of a place replaces the old one. */
  open(sealed: string, place: string): string {
    const known = this.#opened.get(place);
    if (known?.sealed === sealed) return known.key;
    const key = this.#keyring.open(sealed, place);
    this.#opened.set(place, { sealed, key });
    return key;
  }
}
