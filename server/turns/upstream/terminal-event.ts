import { toEventError } from "../../engine-contract/errors.ts";
import { fieldOf } from "../../json/field-of.ts";
import type { Secrets } from "../../secrets/secrets.ts";
import { COMPLETED, toEndCause, type EndCause } from "../model/turn-end.ts";

/** The end that an event of the engine brings; undefined: the turn goes on. */
export function findTerminalCause(type: string, data: unknown, secrets: Secrets): EndCause | undefined {
  if (type === "error") return toEngineFailure(data, secrets);
  if (type !== "thread_lifecycle") return undefined;
  const phase = fieldOf(data, "phase");
  if (phase === "completed") return COMPLETED;
  return phase === "errored" ? toEngineFailure(data, secrets) : undefined;
}

function toEngineFailure(data: unknown, secrets: Secrets): EndCause {
  const engineError = toEventError(data, secrets);
  const message = `the engine reported ${engineError.code}`;
  return toEndCause("failed", "ENGINE_ERROR", { message, engineError, engineMayContinue: false });
}
