import { hash } from "node:crypto";
import { toCanonicalJson } from "../json/canonical-json.ts";
import { DomainError } from "../errors.ts";
import type { Keyring } from "../keys/keyring.ts";
import { isRowMac, toRowMac, type MacInput } from "../keys/row-mac.ts";

/** Tells whether a later call has the same input, without the input. */
export interface Fingerprint {
  /** For the row. A bare hash would tell a short input: one can try all short texts, but not without a master key. */
  readonly stored: string;
  readonly digest: string;
  readonly macInput: MacInput;
}

/**
 * A MAC over canonical JSON: equal inputs of one row have equal fingerprints, whatever the order of their properties.
 * `row` names the row, so that equal inputs of other rows do not show.
 *
 * @throws INVALID_INPUT if the input nests too deep for the stack.
 */
export function toFingerprint(keyring: Keyring, row: readonly string[], input: unknown): Fingerprint {
  const digest = hash("sha256", toCanonical(input), "hex");
  const macInput: MacInput = { purpose: "input", fields: [...row, digest] };
  return { stored: toRowMac(keyring, macInput), digest, macInput };
}

/** Whether the row's fingerprint is that of this input. Earlier versions stored the bare hash. */
export function isFingerprint(keyring: Keyring, stored: string, of: Fingerprint): boolean {
  return stored === of.stored || stored === of.digest || isRowMac(keyring, of.macInput, stored);
}

function toCanonical(input: unknown): string {
  try {
    return toCanonicalJson(input);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new DomainError("INVALID_INPUT", "the input nests too deep: flatten it", { cause: error });
  }
}
