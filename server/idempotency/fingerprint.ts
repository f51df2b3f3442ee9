import { hash } from "node:crypto";
import canonicalize from "canonicalize";
import { DomainError } from "../errors.ts";

/**
 * SHA-256 over canonical JSON (RFC 8785): equal inputs have equal fingerprints, whatever the order of their properties.
 * Throws INVALID_INPUT if the input nests too deep for the stack.
 */
export function toFingerprint(input: unknown): string {
  return hash("sha256", toCanonical(input), "hex");
}

function toCanonical(input: unknown): string {
  try {
    return canonicalize(input) ?? "";
  } catch (error) {
    if (error instanceof RangeError) {
      throw new DomainError("INVALID_INPUT", "the input nests too deep: flatten it", { cause: error });
    }
    // Callers may send lone surrogates, which RFC 8785 refuses. JSON.stringify escapes each of them differently.
    return JSON.stringify(input, sortProperties);
  }
}

function sortProperties(_name: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
