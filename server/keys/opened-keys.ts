import { LRUCache } from "lru-cache";
import type { TamperReports } from "../audit/tamper-reports.ts";
import type { CallableEngine } from "../../db/engines.ts";
import { DomainError } from "../errors.ts";
import { isEndpointAuthentic, openEngineKey } from "./engine-key.ts";
import type { Keyring } from "./keyring.ts";
import { rowTampered } from "./tampered-row.ts";

export const MAX_REMEMBERED = 1_000;

interface OpenedKey {
  engine: CallableEngine;
  key: string;
}

/**
 * Caches the plaintext keys of the engines that were called last. Each call to an engine needs its key, and decrypting
 * a key and checking an address are the most expensive steps of a call.
 */
export class OpenedKeys {
  readonly #keyring: Keyring;
  readonly #reports: Pick<TamperReports, "report">;
  readonly #opened = new LRUCache<string, OpenedKey>({ max: MAX_REMEMBERED });

  constructor(keyring: Keyring, reports: Pick<TamperReports, "report">) {
    this.#keyring = keyring;
    this.#reports = reports;
  }

  /**
   * Returns the key to send to the engine's endpoint. The cache holds one key per engine; a changed row replaces it.
   * Throws ROW_TAMPERED if the key or the endpoint is not the engine's own.
   */
  open(engine: CallableEngine): string {
    const known = this.#opened.get(engine.id);
    if (known !== undefined && isSame(known.engine, engine)) return known.key;
    const key = this.#openNew(engine);
    const { id, productId, userId, endpoint, endpointMac, keySealed } = engine;
    this.#opened.set(id, { engine: { id, productId, userId, endpoint, endpointMac, keySealed }, key });
    return key;
  }

  #openNew(engine: CallableEngine): string {
    try {
      if (!isEndpointAuthentic(this.#keyring, engine)) {
        throw rowTampered({ table: "engines", id: engine.id, mac: engine.endpointMac });
      }
      return openEngineKey(this.#keyring, engine);
    } catch (error) {
      // The replica also opens keys without a call of a caller, when it takes over a turn.
      if (error instanceof DomainError && error.tampered) this.#reports.report(error.tampered);
      throw error;
    }
  }
}

function isSame(known: CallableEngine, engine: CallableEngine): boolean {
  return (
    known.keySealed === engine.keySealed &&
    known.endpoint === engine.endpoint &&
    known.endpointMac === engine.endpointMac &&
    known.productId === engine.productId &&
    known.userId === engine.userId
  );
}
