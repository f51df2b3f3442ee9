import { createHmac, timingSafeEqual } from "node:crypto";
import type { Keyring } from "./keyring.ts";

/**
 * What a MAC is for. Each purpose has its own key, so a MAC of one kind of row is never valid for another kind. Add one
 * here for a new kind of row, and never reuse a name.
 */
export const MAC_PURPOSES = [
  "engine",
  "engine_endpoint",
  "product",
  "platform_key",
  "operator",
  "audit_head",
  "master_key",
  "input",
] as const;
export type MacPurpose = (typeof MAC_PURPOSES)[number];

/** A covered value. Canonicalize JSON before, and give instants as ISO text: both have several equal forms. */
export type MacField = string | number | boolean | null | readonly string[];

/** What a MAC covers. The fields include the identity of the row, so that no other row can carry its MAC. */
export interface MacInput {
  purpose: MacPurpose;
  fields: readonly MacField[];
}

/**
 * `<keyId>:<mac>`: HMAC-SHA-256 over the purpose and the fields, under a key that is derived from the first master key.
 * Only who has a master key can make one. Who can write the database can still put an old row back with its old MAC.
 */
export function toRowMac(keyring: Pick<Keyring, "firstKeyId" | "macKey">, input: MacInput): string {
  const { firstKeyId } = keyring;
  return `${firstKeyId}:${toMac(keyring, firstKeyId, input)?.toString("base64url")}`;
}

/** True if the MAC was made for these fields under any key of the ring. A missing MAC is false. */
export function isRowMac(
  keyring: Pick<Keyring, "macKey">,
  input: MacInput,
  mac: string | null | undefined,
): boolean {
  const colon = mac?.indexOf(":") ?? -1;
  if (mac === null || mac === undefined || colon < 0) return false;
  const expected = toMac(keyring, mac.slice(0, colon), input);
  const given = Buffer.from(mac.slice(colon + 1), "base64url");
  return expected !== undefined && given.length === expected.length && timingSafeEqual(given, expected);
}

/** undefined: the ring lacks the key. */
function toMac(
  keyring: Pick<Keyring, "macKey">,
  keyId: string,
  { purpose, fields }: MacInput,
): Buffer | undefined {
  const key = keyring.macKey(keyId, purpose);
  // JSON keeps the borders of the fields, so that no two lists of fields have the same text.
  return (
    key &&
    createHmac("sha256", key)
      .update(JSON.stringify([purpose, ...fields]))
      .digest()
  );
}

/** An instant of the database as a field. Text that is no instant, such as `infinity`, is covered as it is. */
export function toMacInstant(timestamp: string | null): string | null {
  if (timestamp === null) return null;
  const ms = Date.parse(timestamp);
  return Number.isNaN(ms) ? timestamp : new Date(ms).toISOString();
}
