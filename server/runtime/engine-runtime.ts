/**
 * The port to whatever runs engines. The domain decides, a runtime only carries out and tells what it sees.
 *
 * Rules every implementation keeps, checked by one contract suite:
 * - each call is idempotent, has a deadline of its own, and fails only with a RuntimeFailure;
 * - a failure of kind `unreachable` says nothing about the container: the call may still be carried out;
 * - the container's name is the mutex of `ensure`; every other call addresses the container id that was
 *   observed, so that a late call meets its own incarnation or `no_such_container`;
 * - only containers and volumes that carry this instance's labels are ever seen or touched.
 */
export interface EngineRuntime extends AsyncDisposable {
  readonly kind: RuntimeKind;
  /** Which machine and daemon this is; engines are bound to it. Stable over restarts. */
  readonly host: string;

  /**
   * Throws `unreachable` when nothing answers and `changed` when what answers is not the daemon that
   * `markInstance` marked.
   */
  check(): Promise<void>;
  /** Leaves the marker that `check` looks for. Called once, at the first boot on this database. */
  markInstance(): Promise<void>;

  /** The id that the image resolves to here; undefined when it is not here. Never pulls. */
  findImage(image: string): Promise<string | undefined>;
  /**
   * The id that the image resolves to here, pulling it when it is missing. Progress goes to the log.
   * Throws `image_missing` when it is not here and cannot be pulled.
   */
  resolveImage(image: string, signal?: AbortSignal): Promise<string>;

  /** Network, volume and container, created but not started; adopts a container of ours with that name. */
  ensure(spec: ContainerSpec): Promise<EnsuredContainer>;
  /** Throws `port_taken` when the host port cannot be bound. A started container is success. */
  start(containerId: string): Promise<void>;
  pause(containerId: string): Promise<void>;
  unpause(containerId: string): Promise<void>;
  /** SIGTERM, then SIGKILL after the grace; disarms any restarting by the daemon. A stopped one is success. */
  stop(containerId: string, graceSeconds: number): Promise<void>;
  /** Removes a container, running or not. An absent one is success. */
  remove(containerId: string): Promise<void>;
  /** Removes the volume and what is in it. An absent one is success. */
  removeData(volumeName: string): Promise<void>;

  hasData(volumeName: string): Promise<boolean>;
  /** Every container of that engine, newest incarnation first. Empty means: clearly none. */
  observe(engineId: string): Promise<ContainerObservation[]>;
  /** The same for all engines of this instance, and all of its volumes. */
  observeAll(): Promise<{ containers: ContainerObservation[]; volumes: VolumeObservation[] }>;
  /** Hints about changes, for latency only; ends when the signal aborts, throws when the link is lost. */
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>;
  /** The last `tail` lines that the container wrote, oldest first. */
  logs(containerId: string, tail: number): Promise<LogLine[]>;
  /** All zero for a container that does not run. */
  stats(containerId: string): Promise<ContainerStats>;

  /**
   * Removes whatever carries this instance's labels, data, network and marker included. For demos and tests,
   * which leave nothing behind; nothing in the domain calls it.
   */
  removeInstance(): Promise<void>;
}

export const RUNTIME_KINDS = ["docker", "process", "memory"] as const;
export type RuntimeKind = (typeof RUNTIME_KINDS)[number];

export interface ContainerSpec {
  engineId: string;
  /** Counts the containers wanted for this engine, from 1; part of the container's name. */
  incarnation: number;
  fencingToken: number;
  specHash: string;
  /** What `resolveImage` answered; never a tag. Ignored by runtimes without images. */
  imageId: string;
  volumeName: string;
  hostPort: number;
  enginePort: number;
  network: string;
  catalogPath: string;
  /** The container's whole environment but what the runtime itself must add. */
  environment: Readonly<Record<string, string>>;
  limits: ContainerLimits;
  stopGraceSeconds: number;
}

export interface EnsuredContainer {
  containerId: string;
  /** True: made by this call, exactly as specified and never started. False: adopted, in whatever state it is. */
  created: boolean;
}

export interface ContainerLimits {
  memoryMb: number;
  /** CPUs, fractions allowed. */
  cpus: number;
  pids: number;
  readOnly: boolean;
  /** Linux capabilities given back after all are dropped. */
  capAdd: readonly string[];
  /** `uid[:gid]` or a name in the image; null is the image's own. */
  user: string | null;
}

export const CONTAINER_STATES = ["created", "running", "paused", "restarting", "exited"] as const;
export type ContainerState = (typeof CONTAINER_STATES)[number];

export interface ContainerObservation {
  containerId: string;
  engineId: string;
  incarnation: number;
  specHash: string;
  state: ContainerState;
  /** ISO instant; null when never started. With the container id it names one process. */
  startedAt: string | null;
  /** null while it runs, when it never ran, and when nobody saw it exit. */
  exitCode: number | null;
  oomKilled: boolean;
  /** How often the daemon restarted it by itself. */
  restartCount: number;
  hostPort: number;
  /** ENGINE_KEY_HASH as the container's own environment has it. */
  keyHash: string;
}

export interface VolumeObservation {
  volumeName: string;
  engineId: string;
}

export const RUNTIME_EVENTS = ["start", "die", "oom", "stop", "kill", "pause", "unpause", "destroy"] as const;
export interface RuntimeEvent {
  kind: (typeof RUNTIME_EVENTS)[number];
  engineId: string;
  containerId: string;
}

export interface LogLine {
  /** ISO instant as the runtime recorded it. */
  at: string;
  stream: "stdout" | "stderr";
  line: string;
}

export interface ContainerStats {
  memoryBytes: number;
  cpuNanoseconds: bigint;
  networkBytes: bigint;
}

export const RUNTIME_FAILURES = [
  "unreachable",
  "changed",
  "image_missing",
  "port_taken",
  "no_such_container",
  "conflict",
  "refused",
] as const;
export type RuntimeFailureKind = (typeof RUNTIME_FAILURES)[number];

/**
 * How a runtime call failed. `unreachable`: no answer in time, outcome unknown. `conflict`: the name is taken
 * by something that is not ours. `refused`: the daemon answered no for a reason of its own, in the message.
 */
export class RuntimeFailure extends Error {
  readonly kind: RuntimeFailureKind;

  constructor(kind: RuntimeFailureKind, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "RuntimeFailure";
    this.kind = kind;
  }
}

/** Names one process: moves whenever the container or its process does. */
export function toProcessIdentity(
  observation: Pick<ContainerObservation, "containerId" | "startedAt">,
): string {
  return `${observation.containerId}@${observation.startedAt ?? "never"}`;
}
