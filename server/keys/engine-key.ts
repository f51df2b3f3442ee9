import type { EngineRow } from "../../db/engines.ts";
import type { Keyring } from "./keyring.ts";
import { SealError } from "./seal-bytes.ts";
import { isRowMac, toRowMac, type MacInput } from "./row-mac.ts";
import { rowTampered } from "./tampered-row.ts";

type EngineIdentity = Pick<EngineRow, "id" | "productId" | "userId">;

/** The whole identity: a sealed key that was copied to another engine, user or product does not open there. */
export function toEngineKeyData({ id, productId, userId }: EngineIdentity): string {
  return `engine_key ${JSON.stringify([productId, userId, id])}`;
}

export function sealEngineKey(keyring: Keyring, engine: EngineIdentity, plaintext: string): string {
  return keyring.seal(plaintext, toEngineKeyData(engine));
}

/** Throws ROW_TAMPERED if the sealed key is damaged or belongs to another engine. */
export function openEngineKey(
  keyring: Pick<Keyring, "open">,
  engine: EngineIdentity & Pick<EngineRow, "keySealed" | "endpointMac">,
): string {
  try {
    return keyring.open(engine.keySealed, toEngineKeyData(engine));
  } catch (error) {
    if (!(error instanceof SealError)) throw error;
    throw rowTampered({ table: "engines", id: engine.id, mac: engine.endpointMac }, error);
  }
}

/** Covers where the service sends the engine's key and the users' messages. null: there is no address to cover. */
export function toEndpointMac(
  keyring: Pick<Keyring, "firstKeyId" | "macKey">,
  engineId: string,
  endpoint: string | null,
): string | null {
  return endpoint === null ? null : toRowMac(keyring, toEndpointInput(engineId, endpoint));
}

export function isEndpointAuthentic(
  keyring: Pick<Keyring, "macKey">,
  { id, endpoint, endpointMac }: Pick<EngineRow, "id" | "endpoint" | "endpointMac">,
): boolean {
  return endpoint === null || isRowMac(keyring, toEndpointInput(id, endpoint), endpointMac);
}

function toEndpointInput(engineId: string, endpoint: string): MacInput {
  return { purpose: "engine_endpoint", fields: [engineId, endpoint] };
}
