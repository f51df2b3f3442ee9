import { createHash } from "node:crypto";

/**
 * SHA-256 over JSON with sorted names: equal for equal inputs, however their properties are ordered. Unlike
 * canonical JSON it takes lone surrogates, which callers may send, and keeps different ones apart.
 */
export function toFingerprint(input: unknown): string {
  const sorted = JSON.stringify(input, (_name, value: unknown) =>
    isRecord(value) ? toSorted(value) : value,
  );
  return createHash("sha256")
    .update(sorted ?? "")
    .digest("hex");
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function toSorted(record: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}
