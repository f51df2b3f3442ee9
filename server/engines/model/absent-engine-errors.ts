import { DomainError } from "../../errors.ts";

export function engineNotFound(): DomainError {
  return new DomainError("ENGINE_NOT_FOUND", "this user has no engine: provision one");
}

export function engineDestroying(retryAfterMs?: number): DomainError {
  const message = "this user's engine is being destroyed: provision another one after that";
  return new DomainError("ENGINE_DESTROYING", message, { retryAfterMs });
}
