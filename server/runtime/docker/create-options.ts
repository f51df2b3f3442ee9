import type { ContainerCreateOptions, MountSettings } from "dockerode";
import { toInternalAddress } from "./internal-address.ts";
import { toContainerLabels, toVolumeLabels } from "./labels.ts";
import { getHostPort, type ContainerSpec } from "../engine-runtime.ts";

export const RESTART_POLICY = "unless-stopped";
const MEBIBYTE = 1024 * 1024;
const RUN_MB = 16;

interface CreateInput {
  instanceId: string;
  spec: ContainerSpec;
  /** The network's name, or its id if several networks have the name. */
  networkRef: string;
}

/**
 * The body of the daemon's create call. The container's name is not in the body, but a query parameter.
 * docs/container-hardening.md explains each choice.
 */
export function toCreateOptions({ instanceId, spec, networkRef }: CreateInput): ContainerCreateOptions {
  const port = `${spec.enginePort}/tcp`;
  return {
    Image: spec.imageId,
    Env: Object.entries(spec.environment).map(([name, value]) => `${name}=${value}`),
    Labels: toContainerLabels(instanceId, spec),
    ExposedPorts: { [port]: {} },
    // The engine contract requires SIGTERM, whatever signal the image names.
    StopSignal: "SIGTERM",
    // The grace when the daemon itself shuts down. The daemon's default is 10 s.
    StopTimeout: spec.stopGraceSeconds,
    ...(spec.limits.user === null ? {} : { User: spec.limits.user }),
    HostConfig: {
      RestartPolicy: { Name: RESTART_POLICY },
      NetworkMode: networkRef,
      // The daemon publishes no port of an internal network. There, the binding only records the reserved port.
      PortBindings: { [port]: [{ HostIp: "127.0.0.1", HostPort: String(getHostPort(spec)) }] },
      Mounts: toMounts(instanceId, spec),
      Tmpfs: {
        "/tmp": `rw,exec,nosuid,nodev,mode=1777,size=${spec.tmpMb}m`,
        "/run": `rw,noexec,nosuid,nodev,mode=1777,size=${RUN_MB}m`,
      },
      Init: true,
      LogConfig: { Type: "json-file", Config: { "max-size": "10m", "max-file": "3" } },
      ...toConfinement(spec),
      ...toInternalDns(spec),
    },
    ...toInternalNetworking(spec, networkRef),
  };
}

function toConfinement({ limits, openFiles }: ContainerSpec) {
  const memoryBytes = limits.memoryMb * MEBIBYTE;
  return {
    CapDrop: ["ALL"],
    CapAdd: [...limits.capAdd],
    SecurityOpt: ["no-new-privileges:true"],
    Privileged: false,
    // Said explicitly, because the daemon's configuration may have another default.
    IpcMode: "private",
    ReadonlyRootfs: limits.readOnly,
    PidsLimit: limits.pids,
    Memory: memoryBytes,
    // Memory and swap together. Without this limit, the container may use the same amount of swap as well.
    MemorySwap: memoryBytes,
    NanoCpus: Math.round(limits.cpus * 1e9),
    Ulimits: [
      { Name: "nofile", Soft: openFiles, Hard: openFiles },
      // A core dump would put the provider keys of the engine's memory into a file.
      { Name: "core", Soft: 0, Hard: 0 },
    ],
  };
}

/**
 * Some daemons forward an internal container's questions for outside names from the host, which is a way out. With this
 * address, they ask inside the container, where no resolver answers.
 */
function toInternalDns({ internalSubnet }: ContainerSpec) {
  return internalSubnet === null ? {} : { Dns: ["127.0.0.1"] };
}

function toInternalNetworking(spec: ContainerSpec, networkRef: string) {
  if (spec.internalSubnet === null) return {};
  const address = toInternalAddress(spec.internalSubnet, getHostPort(spec));
  return {
    NetworkingConfig: { EndpointsConfig: { [networkRef]: { IPAMConfig: { IPv4Address: address } } } },
  };
}

function toMounts(instanceId: string, spec: ContainerSpec): MountSettings[] {
  return [
    {
      Type: "volume",
      Source: spec.volumeName,
      Target: "/data",
      // The daemon silently creates a missing volume. These labels mark it as ours if that ever happens.
      VolumeOptions: {
        NoCopy: false,
        Labels: toVolumeLabels(instanceId, spec.engineId),
        DriverConfig: { Name: "local", Options: {} },
      },
    },
    // A mount, because the daemon creates a missing folder for a bind string.
    { Type: "bind", Source: spec.catalogPath, Target: "/catalog", ReadOnly: true },
  ];
}
