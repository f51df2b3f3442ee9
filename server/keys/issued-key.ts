import { DomainError } from "../errors.ts";
import type { Key } from "./key-view.ts";
import type { Keyring } from "./keyring.ts";

export interface IssuedKey {
  key: Key;
  /** The plaintext. No other reply has it. */
  apiKey: string;
}

/** What is needed to make a key's row. */
export interface KeyIssuer {
  keyring: Keyring;
}

/** Rounds to milliseconds, as replies show it, so that the audit row equals the stored value. */
export function toExpiry(expiresAt: string | undefined): string | null {
  if (expiresAt === undefined) return null;
  const instant = new Date(expiresAt);
  // ISO instants may name the year 0, which Postgres refuses.
  if (instant.getTime() <= 0) throw expiryPassed();
  return instant.toISOString();
}

export function expiryPassed(): DomainError {
  const message = "the expiry has passed: give an instant in the future";
  return new DomainError("INVALID_INPUT", message, { issues: [{ path: "expiresAt", message }] });
}
