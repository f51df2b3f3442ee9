import { EnginehouseError, toEnginehouseError } from "./enginehouse-error.ts";
import type { FailureReason } from "./reason.ts";
import type { RetryOptions } from "./retry-options.ts";
import { sleep } from "./sleep.ts";
import type { Api } from "./turn.ts";

type ProvisionInput = Parameters<Api["engines"]["provision"]["mutate"]>[0];
export type Engine = Awaited<ReturnType<Api["engines"]["get"]["query"]>>;

export interface EnsureInput extends Pick<ProvisionInput, "userId" | "image" | "product"> {
  /** Ends the waiting. An engine that boots goes on booting. */
  signal?: AbortSignal | undefined;
}

interface EnsureContext {
  api: Api;
  retry: RetryOptions;
}

type Step = "provision" | "start";

/** The step to take after the other one was refused: another caller was faster, or has destroyed the engine. */
const NEXT_STEP: Readonly<Record<Step, Partial<Record<FailureReason, Step>>>> = {
  provision: { ENGINE_ALREADY_EXISTS: "start", ENGINE_DESTROYING: "provision" },
  // A failed first boot leaves an engine that only another provision repairs.
  start: { ENGINE_NOT_FOUND: "provision", ENGINE_UNHEALTHY: "provision", ENGINE_DESTROYING: "provision" },
};
/** More than any number of callers at once needs. It ends the attempts if somebody destroys the engine again and again. */
const MAX_STEPS = 20;
const DESTROY_RETRY_MS = 500;

/**
 * Returns the user's engine, running. Provisions it if the user has none, and starts it if it is stopped or has failed.
 * An engine that is being destroyed is waited for, up to `retry.callForMs`.
 */
export async function ensureEngine(ctx: EnsureContext, input: EnsureInput): Promise<Engine> {
  const { signal } = input;
  const giveUpAt = performance.now() + ctx.retry.callForMs;
  const found = await findEngine(ctx.api, input);
  if (found?.status === "running") return found;
  let step: Step = found === undefined || found.status === "destroying" ? "provision" : "start";
  for (let steps = 1; ; steps += 1) {
    const taken = await take(ctx.api, step, input);
    if ("status" in taken && taken.status === "running") return taken;
    const { next, waitMs } = decideNext(step, taken);
    const isTooLate = waitMs > 0 && performance.now() + waitMs > giveUpAt;
    if (next === undefined || steps >= MAX_STEPS || isTooLate)
      throw taken instanceof EnginehouseError ? taken : toNotRunning(taken, steps);
    await sleep(waitMs, signal);
    step = next;
  }
}

/** What follows a step that has not led to a running engine. Without a next step, its refusal is final. */
function decideNext(
  step: Step,
  taken: Engine | EnginehouseError,
): { next: Step | undefined; waitMs: number } {
  // Provision answers before the end of a boot if the service cannot wait for it any longer.
  if (!(taken instanceof EnginehouseError)) return { next: "start", waitMs: 0 };
  const { reason, retryAfterMs = DESTROY_RETRY_MS } = taken;
  return { next: NEXT_STEP[step][reason], waitMs: reason === "ENGINE_DESTROYING" ? retryAfterMs : 0 };
}

function toNotRunning({ userId, status }: Engine, steps: number): EnginehouseError {
  const message = `the engine of ${userId} is ${status} after ${steps} attempts to start it: try again later`;
  return new EnginehouseError("ENGINE_UNHEALTHY", message, { retryAfterMs: DESTROY_RETRY_MS });
}

async function findEngine(api: Api, { userId, product, signal }: EnsureInput): Promise<Engine | undefined> {
  try {
    return await api.engines.get.query({ userId, product }, { signal });
  } catch (thrown) {
    signal?.throwIfAborted();
    const error = toEnginehouseError(thrown);
    if (error.reason === "ENGINE_NOT_FOUND") return undefined;
    throw error;
  }
}

/** The engine, or the refusal. */
async function take(api: Api, step: Step, input: EnsureInput): Promise<Engine | EnginehouseError> {
  const { userId, image, product, signal } = input;
  try {
    if (step === "start") return await api.engines.start.mutate({ userId, product }, { signal });
    const { engine } = await api.engines.provision.mutate({ userId, image, product }, { signal });
    return engine;
  } catch (thrown) {
    signal?.throwIfAborted();
    return toEnginehouseError(thrown);
  }
}
