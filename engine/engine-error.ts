/** The contract's error envelope: `{"error": CODE, "message", "details"?}`. */
export interface ErrorEnvelope {
  readonly error: string;
  readonly message: string;
  readonly details?: unknown;
}

/** An error for the caller. It becomes the envelope of an HTTP answer or the data of an `error` event. */
export class EngineError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.name = "EngineError";
    this.status = status;
    this.code = code;
  }
}

/** Ends a turn that its caller cancelled. The turn's stream then closes with `thread_lifecycle` errored. */
export class TurnCancelled extends EngineError {
  constructor() {
    super(409, "CANCELLED", "the turn was cancelled");
  }
}

/** Hides the text of any error but an {@link EngineError}: that text may contain data of the brain. */
export function toErrorEnvelope(error: unknown): ErrorEnvelope {
  return error instanceof EngineError
    ? { error: error.code, message: error.message }
    : { error: "INTERNAL", message: "internal error" };
}

export function invalidRequest(message: string): EngineError {
  return new EngineError(400, "INVALID_REQUEST", message);
}

export function engineStopping(message: string): EngineError {
  return new EngineError(503, "ENGINE_STOPPING", message);
}
