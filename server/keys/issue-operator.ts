import { randomUUIDv7 } from "node:crypto";
import { insertOperator, OPERATOR_NAME_KEY, type OperatorRow } from "../../db/operators.ts";
import { findViolatedConstraint } from "../../db/postgres-error.ts";
import { appendAudit } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import { DomainError } from "../errors.ts";
import type { IdempotencyRecord } from "../idempotency/idempotency-record.ts";
import { BOOTSTRAP_NAME } from "./caller.ts";
import { expiryPassed, toExpiry, type IssuedKey, type KeyIssuer } from "./issued-key.ts";
import { createKey } from "./key-format.ts";
import { toOperatorMac } from "./key-mac.ts";
import { toOperatorKey } from "./key-view.ts";

const RESERVED_NAMES: ReadonlySet<string> = new Set([BOOTSTRAP_NAME, "system", "admission", "reconciler"]);

export interface IssueOperatorInput {
  name: string;
  /** ISO instant. Without it, the key never expires. */
  expiresAt?: string | undefined;
  idempotency: IdempotencyRecord;
}

/**
 * Issues a key that may make every call. Its name stands in the audit log, so no two keys that are not revoked share
 * one. Throws OPERATOR_NAME_EXISTS, and INVALID_INPUT for a name of the service itself, a name that is not ASCII, or a past expiry.
 */
export async function issueOperator(
  ctx: Pick<BaseContext, "db"> & KeyIssuer & CallContext,
  input: IssueOperatorInput,
): Promise<IssuedKey> {
  const { name, idempotency } = input;
  requireUsableName(name);
  const { plaintext: apiKey, hash, prefix } = createKey("operator");
  const given = { id: randomUUIDv7(), name, prefix, hash, expiresAt: toExpiry(input.expiresAt) };
  const mac = toOperatorMac(ctx.keyring, { ...given, revokedAt: null });
  try {
    return await ctx.db.transaction(async (tx) => {
      const row: OperatorRow | undefined = await insertOperator(tx, { ...given, mac });
      if (row === undefined) throw expiryPassed();
      const reply = { key: toOperatorKey(row), apiKey };
      await idempotency.complete(tx, reply);
      await appendAudit(tx, {
        scope: "platform",
        actor: ctx.actor,
        action: "operator.issued",
        requestId: ctx.requestId,
        metadata: { keyId: row.id, name, prefix, expiresAt: row.expiresAt },
      });
      return reply;
    });
  } catch (error) {
    if (findViolatedConstraint(error) !== OPERATOR_NAME_KEY) throw error;
    throw new DomainError(
      "OPERATOR_NAME_EXISTS",
      `an operator key with the name "${name}" is not revoked: revoke it, with a grace if need be, or choose another name`,
    );
  }
}

/** The audit log shows the name, so no name may look like that of another actor. */
function requireUsableName(name: string): void {
  const isReserved = RESERVED_NAMES.has(name.toLowerCase());
  if (!isReserved && /^[ -~]+$/.test(name)) return;
  const message = isReserved
    ? `the name "${name}" belongs to the service itself: choose another one`
    : "a name has ASCII characters only: others may look like those of another operator's name";
  throw new DomainError("INVALID_INPUT", message, { issues: [{ path: "name", message }] });
}
