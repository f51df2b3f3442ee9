import { hash } from "node:crypto";
import { toCanonicalJson } from "../json/canonical-json.ts";
import { DomainError } from "../errors.ts";

/**
 * SHA-256 over canonical JSON: equal inputs have equal fingerprints, whatever the order of their properties.
 * Throws INVALID_INPUT if the input nests too deep for the stack.
 */
export function toFingerprint(input: unknown): string {
  return hash("sha256", toCanonical(input), "hex");
}

function toCanonical(input: unknown): string {
  try {
    return toCanonicalJson(input);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    throw new DomainError("INVALID_INPUT", "the input nests too deep: flatten it", { cause: error });
  }
}
