import { DomainError, type DomainErrorOptions, type Reason } from "../errors.ts";
import type { Keyring } from "../keys/keyring.ts";

interface Place {
  scope: string;
  key: string;
}

interface StoredError extends Pick<DomainErrorOptions, "engineError"> {
  reason: Reason;
  message: string;
}

/** A stored outcome opens only under the key of the caller that it was given to. */
const toPlace = ({ scope, key }: Place) => `idempotency ${JSON.stringify([scope, key])}`;

/** Replies hold plaintext keys, so they are sealed like any other secret. */
export function sealOutcome(
  keyring: Keyring,
  place: Place,
  outcome: { reply: unknown } | { error: DomainError },
): string {
  const stored = "error" in outcome ? { error: toStored(outcome.error) } : outcome;
  return keyring.seal(JSON.stringify(stored), toPlace(place));
}

/** Returns the reply, or throws the error, that was sealed. */
export function openOutcome(keyring: Keyring, place: Place, sealed: string): unknown {
  const stored = JSON.parse(keyring.open(sealed, toPlace(place))) as { reply?: unknown; error?: StoredError };
  if (stored.error !== undefined) {
    const { reason, message, engineError } = stored.error;
    throw new DomainError(reason, message, { engineError });
  }
  return stored.reply;
}

function toStored({ reason, message, engineError }: DomainError): StoredError {
  return { reason, message, engineError };
}
