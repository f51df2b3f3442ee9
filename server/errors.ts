import type { Actor } from "./actor.ts";

/** The reasons for which a call can fail. Callers branch on them, so a reason never changes its meaning. */
export const REASONS = [
  "INVALID_INPUT",
  "IMAGE_NOT_PINNED",
  "REQUEST_TOO_LARGE",
  "INVALID_KEY",
  "KEY_EXPIRED",
  "KEY_REVOKED",
  "SCOPE_MISSING",
  "IMAGE_NOT_ALLOWED",
  "ENGINE_NOT_FOUND",
  "TURN_NOT_FOUND",
  "PRODUCT_NOT_FOUND",
  "KEY_NOT_FOUND",
  "ENGINE_ALREADY_EXISTS",
  "PRODUCT_SLUG_EXISTS",
  "OPERATOR_NAME_EXISTS",
  "PRODUCT_NOT_EMPTY",
  "ENGINE_BUSY",
  "ENGINE_STOPPED",
  "ENGINE_SLEEPING",
  "ENGINE_DESTROYING",
  "GENERATION_CHANGED",
  "TURN_IN_PROGRESS",
  "IDEMPOTENCY_IN_PROGRESS",
  "OUTCOME_UNKNOWN",
  "VOLUME_MISSING",
  "ROW_TAMPERED",
  "RUNTIME_UNCHANGED",
  "IDEMPOTENCY_MISMATCH",
  "NOT_SUPPORTED_BY_ENGINE",
  "QUOTA_EXCEEDED",
  "RATE_LIMITED",
  "STREAM_LIMIT",
  "PORT_EXHAUSTION",
  "RUNTIME_UNREACHABLE",
  "RUNTIME_CHANGED",
  "ENGINE_UNHEALTHY",
  "DRAINING",
  "DATABASE_UNAVAILABLE",
  "ENGINE_ERROR",
  "IMAGE_UNAVAILABLE",
  "BOOT_TIMEOUT",
  "BOOT_FAILED",
  "ENGINE_TIMEOUT",
  "DEADLINE_EXCEEDED",
  "INTERNAL",
] as const;
export type Reason = (typeof REASONS)[number];

/** The error that an engine answered, passed on to the caller. */
export interface EngineErrorDetail {
  /** HTTP status of the engine's answer. */
  status: number;
  /** The engine's own error code. */
  code: string;
  message: string;
  details?: unknown;
}

export interface InputIssue {
  /** The field of the input, as a dotted path. */
  path: string;
  message: string;
}

/** A known key that was refused. It is for the audit log, and never goes to the caller. */
export interface DeniedKey {
  /** null: an operator's key. */
  productId: string | null;
  actor: Actor;
}

/** A row whose MAC or sealed value does not verify. It is for the report, and never goes to the caller. */
export interface TamperedRow {
  table: "engines" | "products" | "platform_keys" | "operators";
  id: string;
  /** The MAC as it is. Another one for the same row is another event. */
  mac: string | null;
}

export interface DomainErrorOptions {
  /** After this time the same request may succeed. */
  retryAfterMs?: number | undefined;
  issues?: readonly InputIssue[] | undefined;
  engineError?: EngineErrorDetail | undefined;
  deniedKey?: DeniedKey | undefined;
  tampered?: TamperedRow | undefined;
  cause?: unknown;
}

/** A failure with a listed reason. Callers see its message, so it never holds a secret. */
export class DomainError extends Error {
  readonly reason: Reason;
  readonly retryAfterMs: number | undefined;
  readonly issues: readonly InputIssue[] | undefined;
  readonly engineError: EngineErrorDetail | undefined;
  readonly deniedKey: DeniedKey | undefined;
  readonly tampered: TamperedRow | undefined;

  constructor(reason: Reason, message: string, options: DomainErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.name = "DomainError";
    this.reason = reason;
    this.retryAfterMs = options.retryAfterMs;
    this.issues = options.issues;
    this.engineError = options.engineError;
    this.deniedKey = options.deniedKey;
    this.tampered = options.tampered;
  }
}

/**
 * Returns the message of any thrown value, for logs and status reasons; never for a caller. The message of a failed
 * statement has the SQL and its parameters, so its cause is used instead.
 */
export function toErrorMessage(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const isStatement = error.message.startsWith("Failed query:");
  return isStatement
    ? toErrorMessage(error.cause ?? "a database statement failed without a cause")
    : error.message;
}
