import type { AnchorRow } from "../../db/audit-anchors.ts";
import type { EngineRow } from "../../db/engines.ts";
import type { OperatorRow } from "../../db/operators.ts";
import type { PlatformKeyRow } from "../../db/platform-keys.ts";
import type { ProductRow } from "../../db/products.ts";
import { SEALED_COLUMNS } from "../../db/sealed-columns.ts";
import type { SealedColumns, SealedRow } from "../../db/sealed-rows.ts";
import { findMacProblem, toAnchorMac } from "../audit/audit-anchor.ts";
import { isEngineAuthentic, toEngineMac } from "../engines/model/engine-mac.ts";
import { openOutcomeText, sealOutcome } from "../idempotency/sealed-outcome.ts";
import { isEndpointAuthentic, sealEngineKey, toEndpointMac, toEngineKeyData } from "../keys/engine-key.ts";
import {
  isOperatorAuthentic,
  isPlatformKeyAuthentic,
  toOperatorMac,
  toPlatformKeyMac,
} from "../keys/key-mac.ts";
import type { Keyring } from "../keys/keyring.ts";
import { SealError } from "../keys/seal-bytes.ts";
import { isProductAuthentic, toProductMac } from "../products/product-mac.ts";

/** A table with values that are made with a master key. */
export interface SealedTable {
  columns: SealedColumns;
  /** The values of an authentic row, made again with the first key. undefined: the row does not verify. */
  reseal(keyring: Keyring, row: SealedRow): SealedRow | undefined;
  /** The values of a row that a person with a master key vouches for. undefined: rows of this table cannot be adopted. */
  adopt?(keyring: Keyring, row: SealedRow): SealedRow;
  /** JSON of what a person has to check before the adoption: it has no control characters. */
  describe?(row: SealedRow): string;
}

type IdempotencyReply = Record<"scope" | "key" | "replySealed", string>;

/**
 * Every table with values under the master keys. A new kind of value gets a row here and in `SEALED_COLUMNS`: without
 * it, `engineKeys.reseal` would leave its values under a master key that an operator then drops.
 */
export const SEALED_TABLES: Readonly<Record<keyof typeof SEALED_COLUMNS, SealedTable>> = {
  engines: {
    columns: SEALED_COLUMNS.engines,
    reseal: (keyring, row: EngineRow) => resealEngine(keyring, row),
    adopt: (keyring, row: EngineRow) => adoptEngine(keyring, row),
    describe: (row: EngineRow) => describeEngine(row),
  },
  products: {
    columns: SEALED_COLUMNS.products,
    reseal: (keyring, row: ProductRow) =>
      isProductAuthentic(keyring, row) ? { mac: toProductMac(keyring, row) } : undefined,
    adopt: (keyring, row: ProductRow) => ({ mac: toProductMac(keyring, row) }),
    describe: (row: ProductRow) => {
      const { slug, policy, deletedAt } = row;
      return JSON.stringify({ slug, policy, removed: deletedAt !== null });
    },
  },
  platform_keys: {
    columns: SEALED_COLUMNS.platform_keys,
    reseal: (keyring, row: PlatformKeyRow) =>
      isPlatformKeyAuthentic(keyring, row) ? { mac: toPlatformKeyMac(keyring, row) } : undefined,
    adopt: (keyring, row: PlatformKeyRow) => ({ mac: toPlatformKeyMac(keyring, row) }),
    describe: (row: PlatformKeyRow) => {
      const { productId, name, prefix, scopes, expiresAt, revokedAt } = row;
      return JSON.stringify({ productId, name, prefix, scopes, expiresAt, revokedAt });
    },
  },
  // The versions without MACs had no operator keys, so a row without a MAC is forged. A lost key is issued anew.
  operators: {
    columns: SEALED_COLUMNS.operators,
    reseal: (keyring, row: OperatorRow) =>
      isOperatorAuthentic(keyring, row) ? { mac: toOperatorMac(keyring, row) } : undefined,
  },
  idempotency: {
    columns: SEALED_COLUMNS.idempotency,
    reseal: (keyring, row: IdempotencyReply) => resealReply(keyring, row),
  },
  audit_anchors: {
    columns: SEALED_COLUMNS.audit_anchors,
    reseal: (keyring, row: AnchorRow) =>
      findMacProblem(keyring, row, row.mac) === undefined ? { mac: toAnchorMac(keyring, row) } : undefined,
  },
};

function resealEngine(keyring: Keyring, row: EngineRow): SealedRow | undefined {
  if (!isEngineAuthentic(keyring, row) || !isEndpointAuthentic(keyring, row)) return undefined;
  return unlessSealError(() => toEngineValues(keyring, row, (sealed) => openKey(keyring, row, sealed)));
}

function toEngineValues(keyring: Keyring, row: EngineRow, open: (sealed: string) => string): SealedRow {
  const { keySealed, nextKeySealed } = row;
  return {
    keySealed: sealEngineKey(keyring, row, open(keySealed)),
    nextKeySealed: nextKeySealed === null ? null : sealEngineKey(keyring, row, open(nextKeySealed)),
    mac: toEngineMac(keyring, row),
    endpointMac: toEndpointMac(keyring, row.id, row.endpoint),
  };
}

function openKey(keyring: Keyring, row: EngineRow, sealed: string): string {
  return keyring.open(sealed, toEngineKeyData(row));
}

/** Earlier versions bound the sealed key to the engine's id alone. */
function adoptEngine(keyring: Keyring, row: EngineRow): SealedRow {
  return toEngineValues(keyring, row, (sealed) => {
    const opened = unlessSealError(() => openKey(keyring, row, sealed));
    return opened ?? keyring.open(sealed, row.id);
  });
}

/** The parts of an engine that could be dangerous, without what differs between good engines. */
function describeEngine({ spec, volumeName, id, runtimeHost, endpoint }: EngineRow): string {
  const { image, imageId, imageFrom, limits, network, catalogPath, environmentNames } = spec;
  const host = endpoint?.replace(/:\d+$/, "") ?? null;
  const volume = volumeName === `engine-data-${id}` ? "its own" : volumeName;
  return JSON.stringify({
    image,
    imageFrom,
    imageId,
    catalogPath,
    network,
    limits,
    environmentNames,
    volume,
    runtimeHost,
    host,
  });
}

function resealReply(keyring: Keyring, row: IdempotencyReply): SealedRow | undefined {
  return unlessSealError(() => ({
    replySealed: sealOutcome(keyring, row, openOutcomeText(keyring, row, row.replySealed)),
  }));
}

function unlessSealError<Result>(open: () => Result): Result | undefined {
  try {
    return open();
  } catch (error) {
    if (error instanceof SealError) return undefined;
    throw error;
  }
}
