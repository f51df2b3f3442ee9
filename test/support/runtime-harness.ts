import { expect, vi } from "vitest";
import { RuntimeFailure } from "../../server/runtime/engine-runtime.ts";
import type {
  ContainerObservation,
  ContainerSpec,
  EngineRuntime,
  RuntimeEvent,
  RuntimeFailureKind,
} from "../../server/runtime/engine-runtime.ts";

export const quietLog = { info: () => {}, warn: () => {} };

/** The engine's answer. undefined: it did not answer in time. */
export async function ask(
  spec: Pick<ContainerSpec, "hostPort">,
  path: string,
  timeoutMs = 30_000,
): Promise<unknown> {
  try {
    const response = await fetch(`http://127.0.0.1:${spec.hostPort}${path}`, {
      signal: AbortSignal.timeout(timeoutMs),
      headers: { connection: "close" },
    });
    return await response.json();
  } catch {
    // The connection was refused or cut, or the answer is too late.
    return undefined;
  }
}

export async function untilHealthy(spec: Pick<ContainerSpec, "hostPort">): Promise<void> {
  const isHealthy = async () => expect(await ask(spec, "/health", 2_000)).toMatchObject({ status: "ok" });
  await vi.waitFor(isHealthy, { timeout: 30_000, interval: 25 });
}

/** Creates and starts a container, and waits until it is healthy. */
export async function boot(runtime: EngineRuntime, spec: ContainerSpec): Promise<string> {
  const { containerId } = await runtime.ensure(spec);
  await runtime.start(containerId);
  await untilHealthy(spec);
  return containerId;
}

/** Observes the engine's only container. */
export async function observeOne(runtime: EngineRuntime, engineId: string): Promise<ContainerObservation> {
  const [observation, ...others] = await runtime.observe(engineId);
  expect(others).toEqual([]);
  if (observation === undefined) throw new Error(`no container of engine ${engineId}`);
  return observation;
}

export async function failureOf(call: Promise<unknown>): Promise<RuntimeFailureKind> {
  const error = await call.then(
    () => new Error("the call succeeded"),
    (thrown: unknown) => thrown,
  );
  if (error instanceof RuntimeFailure) return error.kind;
  throw error;
}

export interface EventRecord extends AsyncDisposable {
  readonly events: RuntimeEvent[];
  /** Stops reading, and returns when the reader has ended. */
  stop(): Promise<void>;
  /** The error that ended the reader; undefined after `stop`. */
  readonly ended: Promise<unknown>;
}

export function recordEvents(runtime: EngineRuntime): EventRecord {
  const events: RuntimeEvent[] = [];
  const abort = new AbortController();
  const read = async () => {
    for await (const event of runtime.events(abort.signal)) events.push(event);
  };
  const ended = read().then(
    () => undefined,
    (error: unknown) => error,
  );
  const stop = async () => {
    abort.abort();
    await ended;
  };
  return { events, ended, stop, [Symbol.asyncDispose]: stop };
}
