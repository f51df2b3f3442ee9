import canonicalize from "canonicalize";
import type { EnginePatch, EngineRow } from "../../../db/engines.ts";
import { toEndpointMac } from "../../keys/engine-key.ts";
import type { Keyring } from "../../keys/keyring.ts";
import { isRowMac, toRowMac, type MacInput } from "../../keys/row-mac.ts";
import { rowTampered } from "../../keys/tampered-row.ts";

/** The columns that decide what is run and mounted, for whom, and which keys the engine accepts. */
const COVERED = [
  "id",
  "productId",
  "userId",
  "spec",
  "volumeName",
  "runtimeHost",
  "keyHash",
  "nextKeyHash",
] as const satisfies readonly (keyof EngineRow)[];
type CoveredColumns = Pick<EngineRow, (typeof COVERED)[number]>;

type MacKeys = Pick<Keyring, "firstKeyId" | "macKey">;

function toEngineMacInput(row: CoveredColumns): MacInput {
  const { id, productId, userId, spec, volumeName, runtimeHost, keyHash, nextKeyHash } = row;
  // jsonb keeps neither the order nor the spelling of the spec.
  const canonicalSpec = canonicalize(spec) ?? "";
  return {
    purpose: "engine",
    fields: [productId, userId, id, canonicalSpec, volumeName, runtimeHost, keyHash, nextKeyHash],
  };
}

export function toEngineMac(keyring: MacKeys, row: CoveredColumns): string {
  return toRowMac(keyring, toEngineMacInput(row));
}

/** False if anything that the MAC covers was changed without a master key. Then nothing of the row may be run. */
export function isEngineAuthentic(
  keyring: Pick<Keyring, "macKey">,
  row: CoveredColumns & Pick<EngineRow, "mac">,
): boolean {
  return isRowMac(keyring, toEngineMacInput(row), row.mac);
}

/** The patch with the MACs of the row that it makes, and the condition under which it may be written. */
export interface ProvenPatch {
  patch: EnginePatch;
  /** The MAC of the row as it was read. undefined: the patch changes nothing that the MAC covers. */
  mac?: string | null;
}

/**
 * Adds the MACs that a patch needs. A new MAC also covers what the patch leaves as it is. So it is made only for a row
 * that verifies, and written only if the row is still the same one. Throws ROW_TAMPERED.
 */
export function toProvenPatch(keyring: MacKeys, row: EngineRow, patch: EnginePatch): ProvenPatch {
  const { endpoint } = patch;
  const addressed =
    endpoint === undefined ? patch : { ...patch, endpointMac: toEndpointMac(keyring, row.id, endpoint) };
  if (COVERED.every((column) => patch[column] === undefined)) return { patch: addressed };
  if (!isEngineAuthentic(keyring, row)) {
    throw rowTampered({ table: "engines", id: row.id, mac: row.mac });
  }
  const next: Record<string, unknown> = {};
  for (const column of COVERED) next[column] = patch[column] === undefined ? row[column] : patch[column];
  const mac = toEngineMac(keyring, next as unknown as CoveredColumns);
  return { patch: { ...addressed, mac }, mac: row.mac };
}
