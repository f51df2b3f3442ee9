import { LRUCache } from "lru-cache";
import type { Keyring } from "./keyring.ts";

export const MAX_REMEMBERED = 1_000;

interface OpenedKey {
  sealed: string;
  key: string;
}

/**
 * Caches the plaintext keys of the engines that were called last. Each call to an engine needs its key, and decrypting
 * a key is the most expensive single step of a call.
 */
export class OpenedKeys {
  readonly #keyring: Keyring;
  readonly #opened = new LRUCache<string, OpenedKey>({ max: MAX_REMEMBERED });

  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** Like `Keyring.open`. The cache holds one sealed text per associated data; a new one replaces it. */
  open(sealed: string, associatedData: string): string {
    const known = this.#opened.get(associatedData);
    if (known?.sealed === sealed) return known.key;
    const key = this.#keyring.open(sealed, associatedData);
    this.#opened.set(associatedData, { sealed, key });
    return key;
  }
}
