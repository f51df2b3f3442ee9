import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeFailure } from "../../server/runtime/engine-runtime.ts";
import type {
  ContainerObservation,
  ContainerSpec,
  ContainerStats,
  EngineRuntime,
  EnsuredContainer,
  LogLine,
  OpenTarget,
  RuntimeEvent,
  RuntimeFailureKind,
} from "../../server/runtime/engine-runtime.ts";
import { MemoryDaemon, toMemoryObservation } from "./memory-daemon.ts";
import type { MemoryContainer, MemoryDaemonOptions } from "./memory-daemon.ts";

/** The calls of the port that a test can make fail or hang. */
export type RuntimeCall = Exclude<keyof EngineRuntime, "kind" | "host" | "events" | symbol>;

export interface CallReport {
  call: RuntimeCall;
  /** `before` the effect, or `after` the effect and before the answer. */
  when: "before" | "after";
  /** The call's first argument. */
  input: unknown;
}

export interface MemoryRuntimeOptions extends MemoryDaemonOptions {
  instanceId?: string;
  marked?: boolean;
  /** Share one daemon between two runtimes to model a second replica, or a restarted one. */
  daemon?: MemoryDaemon;
  /** The deadline of a call that hangs. */
  callTimeoutMs?: number;
}

interface Fault {
  call: RuntimeCall;
  kind: RuntimeFailureKind;
  completed: boolean;
  hangs: boolean;
}

/**
 * A runtime in memory, with real HTTP servers as engines. It passes the same contract suite as the real runtimes.
 * Closing it closes its daemon too, unless the options gave the daemon.
 */
export function openMemoryRuntime(options: MemoryRuntimeOptions = {}): MemoryRuntime {
  return new MemoryRuntime(options);
}

export class MemoryRuntime implements EngineRuntime {
  readonly kind = "memory";
  readonly host = "memory:test";
  readonly publishesHostPorts = true;
  readonly startsOnEnsure = false;
  readonly daemon: MemoryDaemon;
  /** Every call so far, in order. */
  readonly calls: { call: RuntimeCall; input: unknown }[] = [];
  /** Called before and after the effect of each call. What it throws is thrown on, to simulate a crash of ours. */
  onCall: ((report: CallReport) => void | Promise<void>) | undefined;

  readonly #instanceId: string;
  readonly #callTimeoutMs: number;
  readonly #ownsDaemon: boolean;
  #marked: boolean;
  #faults: Fault[] = [];
  #isUnreachable = false;
  #link = openLink();

  constructor(options: MemoryRuntimeOptions) {
    this.#instanceId = options.instanceId ?? "test-instance";
    this.#callTimeoutMs = options.callTimeoutMs ?? 200;
    this.#ownsDaemon = options.daemon === undefined;
    this.daemon = options.daemon ?? new MemoryDaemon(options);
    this.#marked = options.marked ?? false;
  }

  // Controls

  /** While true, no call gets an answer, and readers of events lose the link. Engines keep running. */
  unreachable(isUnreachable: boolean): void {
    this.#isUnreachable = isUnreachable;
    if (isUnreachable) this.#link.lose();
    else this.#link = openLink();
  }

  /** Makes the next such call fail; with `completed` it has its effect anyway. Several faults queue up. */
  failNext(call: RuntimeCall, kind: RuntimeFailureKind, { completed = false } = {}): void {
    this.#faults.push({ call, kind, completed, hangs: false });
  }

  /** Makes the next such call exceed its deadline; by default it has its effect anyway. */
  hang(call: RuntimeCall, { completed = true } = {}): void {
    this.#faults.push({ call, kind: "unreachable", completed, hangs: true });
  }

  /** Ends the engine's process, as a crash does. */
  async crash(engineId: string, { exitCode = 1, oomKilled = false } = {}): Promise<void> {
    await this.daemon.end(this.#runningOf(engineId), exitCode, oomKilled);
  }

  /** Ends the process, and starts it again as the restart policy `unless-stopped` does. */
  async restart(engineId: string, { exitCode = 1 } = {}): Promise<void> {
    const container = this.#runningOf(engineId);
    await this.daemon.end(container, exitCode);
    container.restartCount += 1;
    await this.daemon.start(container);
  }

  /** Writes a line to the engine's log. */
  write(engineId: string, stream: LogLine["stream"], line: string): void {
    this.daemon.write(this.#runningOf(engineId), stream, line);
  }

  /** Removes the volume, as a person with access to the daemon may. */
  loseVolume(volumeName: string): void {
    this.daemon.volumes.delete(volumeName);
  }

  /** From now on, the daemon is one without our marker. */
  loseMarker(): void {
    this.daemon.markers.delete(this.#instanceId);
  }

  // The port

  check(): Promise<void> {
    return this.#call("check", undefined, () => {
      if (this.#marked && !this.daemon.markers.has(this.#instanceId)) {
        throw new RuntimeFailure("changed", "the daemon has no marker of this instance");
      }
    });
  }

  markInstance(_options?: { acceptsAnyHost?: boolean }): Promise<void> {
    return this.#call("markInstance", undefined, () => {
      this.daemon.markers.add(this.#instanceId);
      this.#marked = true;
    });
  }

  findImage(image: string): Promise<string | undefined> {
    return this.#call("findImage", image, () => {
      const { images } = this.daemon;
      return images === undefined || images.has(image) ? image : undefined;
    });
  }

  resolveImage(image: string): Promise<string> {
    return this.#call("resolveImage", image, () => {
      const { images } = this.daemon;
      if (images !== undefined && !images.has(image)) {
        throw new RuntimeFailure("image_missing", `cannot pull ${image}`);
      }
      return image;
    });
  }

  ensure(spec: ContainerSpec): Promise<EnsuredContainer> {
    return this.#call("ensure", spec, () => {
      const { images } = this.daemon;
      if (images !== undefined && !images.has(spec.imageId)) {
        throw new RuntimeFailure("image_missing", `no such image: ${spec.imageId}`);
      }
      const before = this.daemon.containers.size;
      const { containerId } = this.daemon.ensure(this.#instanceId, spec);
      return { containerId, created: this.daemon.containers.size > before };
    });
  }

  start(containerId: string): Promise<void> {
    return this.#call("start", containerId, () => this.daemon.start(this.#get(containerId)));
  }

  pause(containerId: string): Promise<void> {
    return this.#call("pause", containerId, () => {
      const container = this.#getLive(containerId);
      if (container.state === "paused") return;
      container.state = "paused";
      container.engine?.pause();
      this.daemon.emit(container, "pause");
    });
  }

  unpause(containerId: string): Promise<void> {
    return this.#call("unpause", containerId, () => {
      const container = this.#getLive(containerId);
      if (container.state === "running") return;
      container.state = "running";
      container.engine?.unpause();
      this.daemon.emit(container, "unpause");
    });
  }

  stop(containerId: string, graceSeconds: number): Promise<void> {
    return this.#call("stop", containerId, async () => {
      const container = this.#get(containerId);
      const { engine } = container;
      if (engine === undefined) return;
      this.daemon.emit(container, "kill");
      const ignoresSigterm = container.spec.environment["FIXTURE_IGNORE_SIGTERM"] === "1";
      if (ignoresSigterm) await sleep(graceSeconds * 1000);
      if (container.engine === engine) await this.daemon.end(container, ignoresSigterm ? 137 : 0);
      this.daemon.emit(container, "stop");
    });
  }

  remove(containerId: string): Promise<void> {
    return this.#call("remove", containerId, async () => {
      const container = this.#find(containerId);
      if (container !== undefined) await this.daemon.remove(container);
    });
  }

  removeData(volumeName: string): Promise<void> {
    return this.#call("removeData", volumeName, () => {
      if (!this.#hasOwnVolume(volumeName)) return;
      for (const { spec } of this.daemon.containers.values()) {
        if (spec.volumeName === volumeName) throw new RuntimeFailure("refused", `${volumeName} is in use`);
      }
      this.daemon.volumes.delete(volumeName);
    });
  }

  hasData(volumeName: string): Promise<boolean> {
    return this.#call("hasData", volumeName, () => this.#hasOwnVolume(volumeName));
  }

  observe(engineId: string): Promise<ContainerObservation[]> {
    return this.#call("observe", engineId, () =>
      this.#observeOwn().filter((observation) => observation.engineId === engineId),
    );
  }

  observeAll(): ReturnType<EngineRuntime["observeAll"]> {
    return this.#call("observeAll", undefined, () => {
      const volumes = [...this.daemon.volumes]
        .filter(([, { instanceId }]) => instanceId === this.#instanceId)
        .map(([volumeName, { engineId }]) => ({ volumeName, engineId }));
      return { containers: this.#observeOwn(), volumes };
    });
  }

  async *events(signal: AbortSignal): AsyncGenerator<RuntimeEvent, void, undefined> {
    if (this.#isUnreachable) throw toUnreachable();
    yield* this.daemon.eventsOf(this.#instanceId).read(signal, this.#link.lost);
  }

  logs(containerId: string, tail: number): Promise<LogLine[]> {
    return this.#call("logs", containerId, () => (tail > 0 ? this.#get(containerId).lines.slice(-tail) : []));
  }

  stats(containerId: string): Promise<ContainerStats> {
    return this.#call("stats", containerId, () => {
      const isLive = this.#get(containerId).engine !== undefined;
      return { memoryBytes: isLive ? 1024 : 0, cpuNanoseconds: isLive ? 1n : 0n, networkBytes: 0n };
    });
  }

  measureVolumes(): Promise<Map<string, number>> {
    return this.#call("measureVolumes", undefined, () => {
      const own = [...this.daemon.volumes].filter(([, { instanceId }]) => instanceId === this.#instanceId);
      return new Map(own.map(([volumeName, { bytes }]) => [volumeName, bytes ?? 0]));
    });
  }

  findOpenTargets(network: string): Promise<OpenTarget[]> {
    return this.#call("findOpenTargets", network, () => []);
  }

  removeInstance(): Promise<void> {
    return this.#call("removeInstance", undefined, async () => {
      for (const container of this.daemon.containers.values()) {
        if (container.instanceId === this.#instanceId) await this.daemon.remove(container);
      }
      for (const [volumeName, { instanceId }] of this.daemon.volumes) {
        if (instanceId === this.#instanceId) this.daemon.volumes.delete(volumeName);
      }
      this.daemon.markers.delete(this.#instanceId);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ownsDaemon) await this.daemon[Symbol.asyncDispose]();
  }

  async #call<T>(call: RuntimeCall, input: unknown, effect: () => T | Promise<T>): Promise<T> {
    this.calls.push({ call, input });
    await this.onCall?.({ call, when: "before", input });
    if (this.#isUnreachable) throw toUnreachable();
    const index = this.#faults.findIndex((fault) => fault.call === call);
    const [fault] = index < 0 ? [] : this.#faults.splice(index, 1);
    if (fault !== undefined) return this.#fail(fault, effect);
    const result = await effect();
    await this.onCall?.({ call, when: "after", input });
    return result;
  }

  async #fail<T>(fault: Fault, effect: () => T | Promise<T>): Promise<never> {
    // The caller learns nothing about the effect, not even whether it failed.
    if (fault.completed) await (async () => effect())().catch(() => undefined);
    if (fault.hangs) await sleep(this.#callTimeoutMs);
    throw new RuntimeFailure(fault.kind, `made to fail: ${fault.call}`);
  }

  #find(containerId: string): MemoryContainer | undefined {
    const container = this.daemon.containers.get(containerId);
    return container?.instanceId === this.#instanceId ? container : undefined;
  }

  #get(containerId: string): MemoryContainer {
    const container = this.#find(containerId);
    if (container !== undefined) return container;
    throw new RuntimeFailure("no_such_container", `no container ${containerId} of this instance`);
  }

  #getLive(containerId: string): MemoryContainer {
    const container = this.#get(containerId);
    if (container.engine !== undefined) return container;
    throw new RuntimeFailure("refused", `the container ${containerId} is not running`);
  }

  #runningOf(engineId: string): MemoryContainer {
    for (const container of this.daemon.containers.values()) {
      if (container.spec.engineId === engineId && container.engine !== undefined) return container;
    }
    throw new Error(`no running container of engine ${engineId}`);
  }

  #observeOwn(): ContainerObservation[] {
    return [...this.daemon.containers.values()]
      .filter(({ instanceId }) => instanceId === this.#instanceId)
      .map(toMemoryObservation)
      .sort((a, b) => b.incarnation - a.incarnation);
  }

  #hasOwnVolume(volumeName: string): boolean {
    const volume = this.daemon.volumes.get(volumeName);
    if (volume !== undefined && volume.instanceId !== this.#instanceId) {
      throw new RuntimeFailure("conflict", `the volume ${volumeName} belongs to another instance`);
    }
    return volume !== undefined;
  }
}

function toUnreachable(): RuntimeFailure {
  return new RuntimeFailure("unreachable", "no answer from the daemon");
}

function openLink(): { lost: Promise<never>; lose: () => void } {
  const { promise: lost, reject } = Promise.withResolvers<never>();
  lost.catch(() => undefined);
  return { lost, lose: () => reject(toUnreachable()) };
}
