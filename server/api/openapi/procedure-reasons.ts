import { REASONS, type Reason } from "../../errors.ts";
import { isWork } from "../trpc/procedures.ts";
import type { DocumentedProcedure } from "./documented-procedure.ts";

const EVERY_CALL: readonly Reason[] = ["INVALID_INPUT", "REQUEST_TOO_LARGE", "RATE_LIMITED", "INTERNAL"];
const WITH_KEY: readonly Reason[] = [
  "INVALID_KEY",
  "KEY_EXPIRED",
  "KEY_REVOKED",
  "SCOPE_MISSING",
  "ROW_TAMPERED",
  "DATABASE_UNAVAILABLE",
];
const FOR_PRODUCT: readonly Reason[] = ["PRODUCT_NOT_FOUND"];
const BEGINS_WORK: readonly Reason[] = ["DRAINING"];
const IDEMPOTENT: readonly Reason[] = ["IDEMPOTENCY_MISMATCH", "IDEMPOTENCY_IN_PROGRESS"];

/** The reasons with which a procedure may refuse: its own, and those of all calls of its kind. */
export function toReasons({ type, meta, fields }: DocumentedProcedure): Reason[] {
  const { access } = meta;
  const found = new Set<Reason>([
    ...EVERY_CALL,
    ...(access === undefined ? [] : WITH_KEY),
    ...(access === undefined || access === "operator" ? [] : FOR_PRODUCT),
    ...(isWork(type, meta) && access !== undefined ? BEGINS_WORK : []),
    ...(fields.has("idempotencyKey") ? IDEMPOTENT : []),
    ...(meta.reasons ?? []),
  ]);
  return REASONS.filter((reason) => found.has(reason));
}
