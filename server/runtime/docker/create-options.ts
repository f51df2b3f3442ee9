import type { ContainerCreateOptions, MountSettings } from "dockerode";
import { toContainerLabels, toVolumeLabels } from "./labels.ts";
import type { ContainerSpec } from "../engine-runtime.ts";

export const RESTART_POLICY = "unless-stopped";
const MEBIBYTE = 1024 * 1024;

export interface CreateOptionsInput {
  instanceId: string;
  spec: ContainerSpec;
  /** What the daemon calls the network: its name, or its id where the name is ambiguous. */
  networkRef: string;
}

/** The body of the daemon's create call; the container's name is a query parameter, and not in it. */
export function toCreateOptions({
  instanceId,
  spec,
  networkRef,
}: CreateOptionsInput): ContainerCreateOptions {
  const port = `${spec.enginePort}/tcp`;
  return {
    Image: spec.imageId,
    Env: Object.entries(spec.environment).map(([name, value]) => `${name}=${value}`),
    Labels: toContainerLabels(instanceId, spec),
    ExposedPorts: { [port]: {} },
    // An image may name another signal, the contract does not.
    StopSignal: "SIGTERM",
    // A daemon that shuts down stops containers with this grace, and with 10 s where it is not set.
    StopTimeout: spec.stopGraceSeconds,
    ...(spec.limits.user === null ? {} : { User: spec.limits.user }),
    HostConfig: {
      RestartPolicy: { Name: RESTART_POLICY },
      NetworkMode: networkRef,
      PortBindings: { [port]: [{ HostIp: "127.0.0.1", HostPort: String(spec.hostPort) }] },
      Mounts: toMounts(instanceId, spec),
      Tmpfs: { "/tmp": "rw,exec,nosuid,nodev,mode=1777", "/run": "rw,noexec,nosuid,nodev,mode=1777" },
      Init: true,
      LogConfig: { Type: "json-file", Config: { "max-size": "10m", "max-file": "3" } },
      ...toConfinement(spec),
    },
  };
}

function toConfinement({ limits }: ContainerSpec) {
  const memoryBytes = limits.memoryMb * MEBIBYTE;
  return {
    CapDrop: ["ALL"],
    CapAdd: [...limits.capAdd],
    SecurityOpt: ["no-new-privileges:true"],
    ReadonlyRootfs: limits.readOnly,
    PidsLimit: limits.pids,
    Memory: memoryBytes,
    // Memory and swap together: without it the container may swap as much again.
    MemorySwap: memoryBytes,
    NanoCpus: Math.round(limits.cpus * 1e9),
  };
}

function toMounts(instanceId: string, spec: ContainerSpec): MountSettings[] {
  return [
    {
      Type: "volume",
      Source: spec.volumeName,
      Target: "/data",
      // The daemon makes a missing volume without a word. Should one vanish right before, it is labelled at least.
      VolumeOptions: {
        NoCopy: false,
        Labels: toVolumeLabels(instanceId, spec.engineId),
        DriverConfig: { Name: "local", Options: {} },
      },
    },
    // As a mount and not as a bind string, because that one makes a missing folder.
    { Type: "bind", Source: spec.catalogPath, Target: "/catalog", ReadOnly: true },
  ];
}
