import { DomainError } from "../../errors.ts";
import { parseInput } from "../trpc/input-text.ts";

export interface RawBody {
  value: object;
  text: string;
}

/** Reads a body that must be a JSON object. `what` says what to send, for the message of INVALID_INPUT. */
export function readRawBody(body: unknown, what: string): RawBody {
  if (typeof body !== "string" || body === "") {
    throw new DomainError("INVALID_INPUT", `the body is missing: send ${what} as JSON`);
  }
  const value = parseInput(body);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new DomainError("INVALID_INPUT", `the body must be a JSON object: ${what}`);
  }
  return { value, text: body };
}

/** Refuses a field that this route knows by another name. */
export function refuseName(name: string, rightName: string): never {
  refuseField(name, `must be spelled ${rightName}`);
}

/** `message` goes on after the field's name. */
export function refuseField(name: string, message: string): never {
  throw new DomainError("INVALID_INPUT", `the input is not valid: ${name}: ${message}`, {
    issues: [{ path: name, message }],
  });
}
