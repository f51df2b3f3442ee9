/**
 * The port to whatever runs engines. The domain decides; a runtime applies steps and reports what it observes.
 *
 * Rules for every implementation, checked by one contract suite:
 * - Each call is idempotent, has a deadline of its own, and fails only with a RuntimeFailure.
 * - A failure of kind `unreachable` says nothing about the container: the runtime may still complete the call.
 * - The container's name is the mutex of `ensure`. Every other call addresses the container id that was observed.
 *   So a late call meets its own incarnation or `no_such_container`.
 * - Only containers and volumes with this instance's labels are observed or touched.
 */
export interface EngineRuntime extends AsyncDisposable {
  readonly kind: RuntimeKind;
  /** The machine and daemon that engines are bound to. Stable over restarts. */
  readonly host: string;
  /** True: the domain reserves a host port for each engine, and the runtime publishes the engine there. */
  readonly publishesHostPorts: boolean;
  /** True: `ensure` also starts the container. Older containers of the engine must be gone before. */
  readonly startsOnEnsure: boolean;

  /** Throws `unreachable` when nothing answers, `changed` when the daemon that answers has no marker of ours. */
  check(): Promise<void>;
  /**
   * Leaves the marker that `check` looks for: at the first start on a database, and when an operator accepts another
   * runtime. Throws `changed` if another daemon than the recorded one answers, unless `acceptsAnyHost` is true.
   */
  markInstance(options?: { acceptsAnyHost?: boolean }): Promise<void>;

  /** The id of a local image; undefined when the image is missing. Never pulls. */
  findImage(image: string): Promise<string | undefined>;
  /** The same, but pulls a missing image and logs the progress. Throws `image_missing` when the pull fails. */
  resolveImage(image: string, signal?: AbortSignal): Promise<string>;

  /** Creates network, volume and container. Adopts a container of this instance with the same name. */
  ensure(spec: ContainerSpec): Promise<EnsuredContainer>;
  /**
   * Succeeds when the container runs already. Throws `port_taken` when the host port cannot be bound, and `unfit` when
   * something is gone that the container was made with.
   */
  start(containerId: string): Promise<void>;
  pause(containerId: string): Promise<void>;
  unpause(containerId: string): Promise<void>;
  /** Sends SIGTERM, then SIGKILL after the grace. The daemon does not restart the container. Idempotent. */
  stop(containerId: string, graceSeconds: number): Promise<void>;
  /** Removes a container, running or not. Succeeds when the container is absent. */
  remove(containerId: string): Promise<void>;
  /** Removes the volume and its data. Succeeds when the volume is absent. */
  removeData(volumeName: string): Promise<void>;

  hasData(volumeName: string): Promise<boolean>;
  /** The engine's containers, newest incarnation first. An empty list is a clear "none". */
  observe(engineId: string): Promise<ContainerObservation[]>;
  /** The containers of all engines of this instance, and all its volumes. */
  observeAll(): Promise<{ containers: ContainerObservation[]; volumes: VolumeObservation[] }>;
  /** Ends when the signal aborts; throws when the link is lost. Events may be lost: they only save waiting. */
  events(signal: AbortSignal): AsyncIterable<RuntimeEvent>;
  /** The last `tail` lines that the container wrote, oldest first. */
  logs(containerId: string, tail: number): Promise<LogLine[]>;
  /** All zero for a container that does not run. */
  stats(containerId: string): Promise<ContainerStats>;

  /** The bytes in each volume of this instance, by the volume's name. May take a minute: every file is looked at. */
  measureVolumes(): Promise<Map<string, number>>;
  /**
   * What containers on this network can connect to, and engines should not. Empty for runtimes that do not isolate
   * engines. Takes seconds: it runs a container.
   */
  findOpenTargets(network: string): Promise<OpenTarget[]>;

  /** For demos and tests: removes everything with this instance's labels: containers, data, network and marker. */
  removeInstance(): Promise<void>;
}

/** A service of this machine that listens on all addresses, or the metadata service of a cloud. */
export type OpenTarget = "host" | "metadata";

export type RuntimeKind = "docker" | "process" | "memory";

export interface ContainerSpec {
  engineId: string;
  /** Counts the containers made for this engine, from 1. Part of the container's name. */
  incarnation: number;
  fencingToken: number;
  specHash: string;
  /** The answer of `resolveImage`, never a tag. Runtimes without images ignore it. */
  imageId: string;
  volumeName: string;
  /** null exactly when the runtime publishes no host ports. */
  hostPort: number | null;
  enginePort: number;
  network: string;
  /** The subnet of `network`, a private /16, if the network has no way out. null: the network publishes host ports. */
  internalSubnet: string | null;
  catalogPath: string;
  /** The whole environment of the container, except what the runtime itself adds. */
  environment: Readonly<Record<string, string>>;
  limits: ContainerLimits;
  /** How many descriptors a process may have. */
  openFiles: number;
  /** Size of /tmp, which is memory of the container. */
  tmpMb: number;
  /** `ensure` refuses an image that runs as root, unless `limits.user` names a user. */
  refusesRoot: boolean;
  stopGraceSeconds: number;
}

export function toContainerName(spec: Pick<ContainerSpec, "engineId" | "incarnation">): string {
  return `engine-${spec.engineId}-${spec.incarnation}`;
}

/** For runtimes that publish host ports. */
export function getHostPort(spec: Pick<ContainerSpec, "engineId" | "hostPort">): number {
  if (spec.hostPort !== null) return spec.hostPort;
  throw new RuntimeFailure("refused", `no host port is reserved for the engine ${spec.engineId}`);
}

export interface EnsuredContainer {
  containerId: string;
  /** False: a container with that name existed, in any state. */
  created: boolean;
}

export interface ContainerLimits {
  memoryMb: number;
  /** CPUs, fractions allowed. */
  cpus: number;
  pids: number;
  readOnly: boolean;
  /** Linux capabilities to keep; all others are dropped. */
  capAdd: readonly string[];
  /** `uid[:gid]` or a name in the image; null: the image's own user. */
  user: string | null;
}

export type ContainerState = "created" | "running" | "paused" | "restarting" | "exited";

export interface ContainerObservation {
  containerId: string;
  engineId: string;
  incarnation: number;
  specHash: string;
  state: ContainerState;
  /**
   * Opaque name of the container's present or last process. It changes with the container and with each start. A
   * container that never started has one too.
   */
  processIdentity: string;
  /** ISO instant of the last start; null when never started. */
  startedAt: string | null;
  /** null while the container runs, when it never ran, and when its exit was not observed. */
  exitCode: number | null;
  /**
   * The kernel killed the last process that ended, because the container reached its memory limit. A runtime may forget
   * this when the next process starts.
   */
  oomKilled: boolean;
  /** How often the daemon restarted the container without our call. */
  restartCount: number;
  /** Base URL of the engine for every replica, no trailing slash; null until the runtime has assigned one. */
  endpoint: string | null;
  /** null when the runtime publishes no host ports. */
  hostPort: number | null;
  /**
   * Why no caller can reach the container's process, for example because the container has no network. Only another
   * container helps. null: no such defect is known.
   */
  defect: string | null;
  /** ENGINE_KEY_HASH in the container's own environment. */
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

export type RuntimeFailureKind =
  | "unreachable"
  | "changed"
  | "image_missing"
  | "port_taken"
  | "no_such_container"
  | "unfit"
  | "conflict"
  | "refused";

/**
 * How a runtime call failed. `unreachable`: no answer in time, so the outcome is unknown. `unfit`: this container can
 * never start again, for example because its network is gone, but another one can. `conflict`: the name belongs to a
 * container or volume that is not ours. `refused`: the daemon answered no; the message has its reason.
 */
export class RuntimeFailure extends Error {
  readonly kind: RuntimeFailureKind;

  constructor(kind: RuntimeFailureKind, message: string, cause?: unknown) {
    super(message, { cause });
    this.name = "RuntimeFailure";
    this.kind = kind;
  }
}
