import { randomBytes } from "node:crypto";
import { access, mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { isMissing, readJsonFile, writeJsonFile } from "./atomic-file.ts";
import { toContainerName } from "../container-name.ts";
import { RuntimeFailure } from "../engine-runtime.ts";
import type { ContainerSpec, EnsuredContainer, VolumeObservation } from "../engine-runtime.ts";
import type { LogFile } from "./logs.ts";
import { readRun } from "./run.ts";
import type { ProcessRun } from "./run.ts";

/** What stands for a container, as it was created. */
export interface ProcessContainer {
  containerId: string;
  instanceId: string;
  spec: ContainerSpec;
}

/** How the process that started at that instant ended; null when nobody was there to see. */
export interface ProcessExit {
  startedAt: string;
  exitCode: number | null;
}

interface ProcessVolume {
  instanceId: string;
  engineId: string;
}

/**
 * The folders that stand for a daemon's state:
 *
 *     <root>/containers/<name>/container.json   the container's name is the folder's, and so the mutex
 *                              start            token of the latest start
 *                              pid.<token>      of a child that does not know yet whether it is wanted
 *                              pid, exit.json   written by the process itself, and by who saw it end
 *                              stdout.log, stderr.log, tmp/
 *     <root>/volumes/<volume>.json, <volume>/   owner, and what stands for /data
 *     <root>/marker-<instance>.json
 */
export class ProcessStore {
  readonly #root: string;
  readonly #instanceId: string;

  constructor(root: string, instanceId: string) {
    this.#root = root;
    this.#instanceId = instanceId;
  }

  async open(): Promise<void> {
    for (const folder of ["containers", "volumes"]) {
      await mkdir(join(this.#root, folder), { recursive: true, mode: 0o700 });
    }
  }

  /** A path in the folder of a container. */
  pathOf(container: ProcessContainer, file: string): string {
    return join(this.#containerPath(toContainerName(container.spec)), file);
  }

  volumePath(volumeName: string): string {
    return join(this.#root, "volumes", toSafeName(volumeName));
  }

  /** Creates the container, or answers with the one that has its name. */
  async ensureContainer(spec: ContainerSpec): Promise<EnsuredContainer> {
    const name = toContainerName(spec);
    const existing = await this.#readContainer(name);
    if (existing !== undefined) {
      if (existing.instanceId === this.#instanceId && existing.spec.engineId === spec.engineId)
        return { containerId: existing.containerId, created: false };
      throw new RuntimeFailure(
        "conflict",
        `the container name ${name} is taken by something that is not ours`,
      );
    }
    // The random part keeps a call meant for a removed container away from the next one of its name.
    const containerId = `${name}.${randomBytes(4).toString("hex")}`;
    const container = { containerId, instanceId: this.#instanceId, spec };
    await mkdir(this.#containerPath(name), { recursive: true, mode: 0o700 });
    await writeJsonFile(this.pathOf(container, "container.json"), container);
    return { containerId, created: true };
  }

  async findContainer(containerId: string): Promise<ProcessContainer | undefined> {
    if (!isSafeName(containerId)) return undefined;
    const found = await this.#readContainer(containerId.slice(0, containerId.lastIndexOf(".")));
    return found?.containerId === containerId && found.instanceId === this.#instanceId ? found : undefined;
  }

  async listContainers(): Promise<ProcessContainer[]> {
    const names = await readdir(join(this.#root, "containers"));
    const found = await Promise.all(names.filter(isSafeName).map((name) => this.#readContainer(name)));
    const containers = found.filter((container) => container !== undefined);
    return containers.filter(({ instanceId }) => instanceId === this.#instanceId);
  }

  async removeContainer(container: ProcessContainer): Promise<void> {
    await this.#removeFolder(this.#containerPath(toContainerName(container.spec)));
  }

  /** undefined: never started. */
  async readRun(container: ProcessContainer): Promise<ProcessRun | undefined> {
    return readRun(this.pathOf(container, "pid"));
  }

  /** Pid files of children that were started and did not get as far as to be the container's process. */
  async listStrayPidFiles(container: ProcessContainer): Promise<string[]> {
    const names = await readdir(this.#containerPath(toContainerName(container.spec)));
    return names.filter((name) => name.startsWith("pid.")).map((name) => this.pathOf(container, name));
  }

  logFilesOf(container: ProcessContainer): LogFile[] {
    const streams = ["stdout", "stderr"] as const;
    return streams.map((stream) => ({ stream, path: this.pathOf(container, `${stream}.log`) }));
  }

  /** Writes nothing when the container has been removed. */
  async writeExit(container: ProcessContainer, exit: ProcessExit): Promise<void> {
    try {
      await writeJsonFile(this.pathOf(container, "exit.json"), exit);
    } catch (error) {
      if (!isMissing(error)) throw error;
    }
  }

  async readExit(container: ProcessContainer): Promise<ProcessExit | undefined> {
    return (await readJsonFile(this.pathOf(container, "exit.json"))) as ProcessExit | undefined;
  }

  async ensureVolume(volumeName: string, engineId: string): Promise<void> {
    const owner = await this.#readOwnVolume(volumeName);
    const volume: ProcessVolume = { instanceId: this.#instanceId, engineId };
    if (owner === undefined) await writeJsonFile(`${this.volumePath(volumeName)}.json`, volume);
    await mkdir(this.volumePath(volumeName), { recursive: true, mode: 0o700 });
  }

  async hasVolume(volumeName: string): Promise<boolean> {
    return (await this.#readOwnVolume(volumeName)) !== undefined && isThere(this.volumePath(volumeName));
  }

  async listVolumes(): Promise<VolumeObservation[]> {
    const names = await readdir(join(this.#root, "volumes"), { withFileTypes: true });
    const observations: VolumeObservation[] = [];
    for (const { name } of names.filter((entry) => entry.isDirectory() && isSafeName(entry.name))) {
      const volume = await this.#readVolume(name);
      if (volume?.instanceId !== this.#instanceId) continue;
      observations.push({ volumeName: name, engineId: volume.engineId });
    }
    return observations;
  }

  async removeVolume(volumeName: string): Promise<void> {
    if ((await this.#readOwnVolume(volumeName)) === undefined) return;
    await this.#removeFolder(this.volumePath(volumeName));
    await rm(`${this.volumePath(volumeName)}.json`, { force: true });
  }

  async writeMarker(): Promise<void> {
    await writeJsonFile(this.#markerPath(), { instanceId: this.#instanceId });
  }

  async hasMarker(): Promise<boolean> {
    return isThere(this.#markerPath());
  }

  async removeMarker(): Promise<void> {
    await rm(this.#markerPath(), { force: true });
  }

  #markerPath(): string {
    return join(this.#root, `marker-${toSafeName(this.#instanceId)}.json`);
  }

  #containerPath(name: string): string {
    return join(this.#root, "containers", toSafeName(name));
  }

  async #readContainer(name: string): Promise<ProcessContainer | undefined> {
    // A folder without this file is a creation that was cut short, and is taken up by the next.
    const path = join(this.#containerPath(name), "container.json");
    return (await readJsonFile(path)) as ProcessContainer | undefined;
  }

  async #readVolume(volumeName: string): Promise<ProcessVolume | undefined> {
    return (await readJsonFile(`${this.volumePath(volumeName)}.json`)) as ProcessVolume | undefined;
  }

  async #readOwnVolume(volumeName: string): Promise<ProcessVolume | undefined> {
    const volume = await this.#readVolume(volumeName);
    if (volume !== undefined && volume.instanceId !== this.#instanceId) {
      throw new RuntimeFailure("conflict", `the volume ${volumeName} is not of this instance`);
    }
    return volume;
  }

  /** Out of sight at once, whatever interrupts the rest. */
  async #removeFolder(path: string): Promise<void> {
    const doomed = join(this.#root, `removed-${randomBytes(8).toString("hex")}`);
    try {
      await rename(path, doomed);
    } catch (error) {
      if (isMissing(error)) return;
      throw error;
    }
    await rm(doomed, { recursive: true, force: true, maxRetries: 5 });
  }
}

function isSafeName(name: string): boolean {
  return /^[A-Za-z0-9][A-Za-z0-9_.-]{0,200}$/.test(name);
}

/** Names become paths, and may not lead anywhere else. */
function toSafeName(name: string): string {
  if (isSafeName(name)) return name;
  throw new RuntimeFailure("refused", `not a name for a file: ${name}`);
}

async function isThere(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
