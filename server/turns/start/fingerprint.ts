import { hash } from "node:crypto";
import canonicalize from "canonicalize";
import { DomainError } from "../../errors.ts";
import type { StartTurnInput } from "./start-turn.ts";

/** The same for the same input, however its fields are ordered: SHA-256 over RFC 8785. Throws INVALID_INPUT. */
export function toFingerprint(
  input: Pick<StartTurnInput, "userId" | "request" | "expectGeneration">,
): string {
  const { userId, request, expectGeneration } = input;
  const subject = { userId, request, expectGeneration };
  return hash("sha256", toCanonical(subject), "hex");
}

function toCanonical(subject: object): string {
  try {
    return canonicalize(subject) ?? "";
  } catch (error) {
    if (error instanceof RangeError) {
      throw new DomainError("INVALID_INPUT", "the request nests too deep", { cause: error });
    }
    // RFC 8785 has no form for a lone surrogate, which a message may well have: escaped it is as good as any.
    return JSON.stringify(subject, sortKeys);
  }
}

function sortKeys(_key: string, value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
}
