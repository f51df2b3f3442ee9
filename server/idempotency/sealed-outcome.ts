import type { IdempotencyOwner } from "../../db/idempotency.ts";
import { DomainError } from "../errors.ts";
import type { Keyring } from "../keys/keyring.ts";

type RecordKey = Pick<IdempotencyOwner, "scope" | "key">;
export type Outcome = { reply: unknown } | { error: DomainError };

type StoredError = Pick<DomainError, "reason" | "message" | "engineError">;

/** Binds a sealed outcome to its record: moved to another record, it does not open. */
const toOutcomeData = ({ scope, key }: RecordKey) => `idempotency ${JSON.stringify([scope, key])}`;

/** The outcome of a call as it is sealed. */
export function toOutcomeText(outcome: Outcome): string {
  return JSON.stringify("error" in outcome ? { error: toStored(outcome.error) } : outcome);
}

/** Seals the outcome of a call, because replies may hold plaintext keys. */
export function sealOutcome(keyring: Keyring, record: RecordKey, outcomeText: string): string {
  return keyring.seal(outcomeText, toOutcomeData(record));
}

export function openOutcomeText(keyring: Keyring, record: RecordKey, sealed: string): string {
  return keyring.open(sealed, toOutcomeData(record));
}

/** Returns the sealed reply, or throws the sealed error. */
export function openOutcome(keyring: Keyring, record: RecordKey, sealed: string): unknown {
  const stored = JSON.parse(openOutcomeText(keyring, record, sealed)) as {
    reply?: unknown;
    error?: StoredError;
  };
  if (stored.error !== undefined) {
    const { reason, message, engineError } = stored.error;
    throw new DomainError(reason, message, { engineError });
  }
  return stored.reply;
}

function toStored({ reason, message, engineError }: DomainError): StoredError {
  return { reason, message, engineError };
}
