import type { DockerContext } from "./context.ts";
import { toDockerFailure } from "./failure.ts";
import { DOCKER_LABEL, toOwnFilter } from "./labels.ts";
import { RUNTIME_EVENTS, RuntimeFailure, type RuntimeEvent } from "../engine-runtime.ts";
import { readJsonLines } from "./json-lines.ts";

/** The event stream has no heartbeat. After this silence, a ping checks whether the daemon still answers. */
const SILENCE_MS = 15_000;

export async function* readDockerEvents(
  ctx: DockerContext,
  signal: AbortSignal,
): AsyncGenerator<RuntimeEvent, void, undefined> {
  if (signal.aborted) return;
  if (ctx.client.closed.aborted) throw new RuntimeFailure("unreachable", "the runtime was closed");
  const reading = new AbortController();
  let lost: unknown;
  const stop = () => reading.abort();
  signal.addEventListener("abort", stop, { once: true });
  ctx.client.closed.addEventListener("abort", stop, { once: true });
  const liveness = setInterval(() => {
    ctx.client
      .call((docker) => docker.ping())
      .catch((error: unknown) => {
        lost = error;
        stop();
      });
  }, SILENCE_MS);
  try {
    for await (const line of await openEvents(ctx, reading.signal)) {
      liveness.refresh();
      const event = toRuntimeEvent(line);
      if (event !== undefined) yield event;
    }
    lost ??= new RuntimeFailure("unreachable", "the Docker daemon ended its event stream");
  } catch (error) {
    lost ??= error;
  } finally {
    clearInterval(liveness);
    signal.removeEventListener("abort", stop);
    ctx.client.closed.removeEventListener("abort", stop);
    // Closes the connection, also for a consumer that stops reading early.
    stop();
  }
  if (!signal.aborted) throw toDockerFailure(lost);
}

async function openEvents(ctx: DockerContext, abortSignal: AbortSignal) {
  const { label } = toOwnFilter(ctx.instanceId);
  const filters = { label, type: ["container" as const], event: [...RUNTIME_EVENTS] };
  const stream = await ctx.client.call((docker) => docker.getEvents({ filters, abortSignal }));
  return readJsonLines(stream, abortSignal);
}

function toRuntimeEvent(line: Record<string, unknown>): RuntimeEvent | undefined {
  const kind = RUNTIME_EVENTS.find((name) => name === line["Action"]);
  const { Actor: actor } = line as { Actor?: { ID?: string; Attributes?: Partial<Record<string, string>> } };
  const engineId = actor?.Attributes?.[DOCKER_LABEL.engine];
  if (kind === undefined || engineId === undefined || actor?.ID === undefined) return undefined;
  return { kind, engineId, containerId: actor.ID };
}
