import { randomBytes } from "node:crypto";
import { getHostPort, RuntimeFailure, toContainerName } from "../../server/runtime/engine-runtime.ts";
import type {
  ContainerObservation,
  ContainerSpec,
  ContainerState,
  LogLine,
  RuntimeEvent,
} from "../../server/runtime/engine-runtime.ts";
import { EventHub } from "../../server/runtime/event-hub.ts";
import { toLoopbackEndpoint, toProcessIdentity } from "../../server/runtime/local-process.ts";
import { answerAsEngine, MemoryEngine } from "./memory-engine.ts";
import type { MemoryEngineHandler } from "./memory-engine.ts";

export interface MemoryContainer {
  readonly containerId: string;
  readonly instanceId: string;
  readonly spec: ContainerSpec;
  state: ContainerState;
  startedAt: string | null;
  exitCode: number | null;
  oomKilled: boolean;
  defect: string | null;
  restartCount: number;
  engine: MemoryEngine | undefined;
  lines: LogLine[];
}

export interface MemoryDaemonOptions {
  handler?: MemoryEngineHandler;
  /** The local images. Undefined: every image exists. */
  images?: ReadonlySet<string>;
}

/** Containers with real servers, volumes and markers. It outlives a replica, and several runtimes may share it. */
export class MemoryDaemon implements AsyncDisposable {
  readonly containers = new Map<string, MemoryContainer>();
  /** By name. */
  readonly volumes = new Map<string, { instanceId: string; engineId: string; bytes?: number }>();
  /** Ids of the instances that left their marker. */
  readonly markers = new Set<string>();
  readonly images: ReadonlySet<string> | undefined;
  readonly #handler: MemoryEngineHandler;
  readonly #hubs = new Map<string, EventHub>();
  #lastStart = 0;

  constructor(options: MemoryDaemonOptions = {}) {
    this.#handler = options.handler ?? answerAsEngine;
    this.images = options.images;
  }

  /** The events of that instance's containers. */
  eventsOf(instanceId: string): EventHub {
    const hub = this.#hubs.get(instanceId) ?? new EventHub();
    this.#hubs.set(instanceId, hub);
    return hub;
  }

  ensure(instanceId: string, spec: ContainerSpec): MemoryContainer {
    const name = toContainerName(spec);
    for (const container of this.containers.values()) {
      if (toContainerName(container.spec) !== name) continue;
      if (container.instanceId === instanceId) return container;
      throw new RuntimeFailure("conflict", `the container name ${name} belongs to another instance`);
    }
    const volume = this.volumes.get(spec.volumeName);
    if (volume !== undefined && volume.instanceId !== instanceId) {
      throw new RuntimeFailure("conflict", `the volume ${spec.volumeName} belongs to another instance`);
    }
    this.volumes.set(spec.volumeName, volume ?? { instanceId, engineId: spec.engineId });
    const container: MemoryContainer = {
      containerId: randomBytes(32).toString("hex"),
      instanceId,
      spec,
      state: "created",
      startedAt: null,
      exitCode: null,
      oomKilled: false,
      defect: null,
      restartCount: 0,
      engine: undefined,
      lines: [],
    };
    this.containers.set(container.containerId, container);
    return container;
  }

  async start(container: MemoryContainer): Promise<void> {
    if (container.state === "running" || container.state === "restarting") return;
    if (container.state === "paused") {
      throw new RuntimeFailure("refused", "the container is paused: unpause it");
    }
    const before = { state: container.state, startedAt: container.startedAt, exitCode: container.exitCode };
    // Two starts never get the same instant, so that they are two processes.
    this.#lastStart = Math.max(this.#lastStart + 1, Date.now());
    container.state = "running";
    container.startedAt = new Date(this.#lastStart).toISOString();
    container.exitCode = null;
    container.oomKilled = false;
    const { environment } = container.spec;
    const hostPort = getHostPort(container.spec);
    const engine = new MemoryEngine(hostPort, this.#handler(toMemoryObservation(container), environment));
    try {
      await engine.listen();
    } catch (error) {
      Object.assign(container, before);
      throw new RuntimeFailure("port_taken", `port ${hostPort} of 127.0.0.1 cannot be bound`, error);
    }
    container.engine = engine;
    this.write(container, "stdout", `listening on ${hostPort}`);
    this.emit(container, "start");
    const exitCode = environment["FIXTURE_EXIT_CODE"];
    if (exitCode !== undefined) await this.end(container, Number(exitCode));
  }

  /** Ends the process of the container. */
  async end(container: MemoryContainer, exitCode: number, oomKilled = false): Promise<void> {
    const { engine } = container;
    if (engine === undefined) return;
    container.engine = undefined;
    container.state = "exited";
    container.exitCode = exitCode;
    container.oomKilled = oomKilled;
    await engine.close();
    if (oomKilled) this.emit(container, "oom");
    this.emit(container, "die");
  }

  async remove(container: MemoryContainer): Promise<void> {
    if (container.engine !== undefined) this.emit(container, "kill");
    await this.end(container, 137);
    if (this.containers.delete(container.containerId)) this.emit(container, "destroy");
  }

  write(container: MemoryContainer, stream: LogLine["stream"], line: string): void {
    container.lines.push({ at: new Date().toISOString(), stream, line });
  }

  emit(container: MemoryContainer, kind: RuntimeEvent["kind"]): void {
    this.eventsOf(container.instanceId).emit({
      kind,
      engineId: container.spec.engineId,
      containerId: container.containerId,
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const container of this.containers.values()) await this.remove(container);
  }
}

export function toMemoryObservation(container: MemoryContainer): ContainerObservation {
  const { containerId, spec, state, startedAt, exitCode, oomKilled, restartCount } = container;
  const { engineId, incarnation, specHash, hostPort } = spec;
  const keyHash = spec.environment["ENGINE_KEY_HASH"] ?? "";
  return {
    containerId,
    engineId,
    incarnation,
    specHash,
    state,
    processIdentity: toProcessIdentity(containerId, startedAt),
    startedAt,
    exitCode,
    oomKilled,
    restartCount,
    endpoint: toLoopbackEndpoint(hostPort),
    hostPort,
    defect: container.defect,
    keyHash,
  };
}
