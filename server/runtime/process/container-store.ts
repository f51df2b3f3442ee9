import { randomBytes } from "node:crypto";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { isMissing, readJsonFile, writeJsonFile } from "../../json-file.ts";
import {
  RuntimeFailure,
  toContainerName,
  type ContainerSpec,
  type EnsuredContainer,
} from "../engine-runtime.ts";
import { readEngineProcess, type EngineProcess } from "./engine-process.ts";
import type { LogFile } from "./logs.ts";
import { isFileName, toFileName } from "./names.ts";
import { removeFolder } from "./remove-folder.ts";

/** A container of the process runtime, as it was created. */
export interface ProcessContainer {
  containerId: string;
  instanceId: string;
  spec: ContainerSpec;
}

/** How the process that started at `startedAt` ended. */
export interface ProcessExit {
  startedAt: string;
  /** null: no replica was its parent when it ended, so the code is unknown. */
  exitCode: number | null;
}

/**
 * The containers of the process runtime, as files in `<root>/containers/<name>/`:
 *
 *     container.json           the container; the folder's name is the container's, and so the mutex of `ensure`
 *     start                    the token of the latest start
 *     pid.<token>              written by a child that has not yet checked whether its start is the latest
 *     pid                      written by the engine's process
 *     exit.json                written by the replica that noticed the end of the process
 *     stdout.log, stderr.log, tmp/
 */
export class ContainerStore {
  readonly #root: string;
  readonly #instanceId: string;

  constructor(root: string, instanceId: string) {
    this.#root = root;
    this.#instanceId = instanceId;
  }

  async open(): Promise<void> {
    await mkdir(join(this.#root, "containers"), { recursive: true, mode: 0o700 });
  }

  /** The path of a file in the container's folder, or of the folder. */
  pathOf({ spec }: Pick<ProcessContainer, "spec">, file = ""): string {
    return join(this.#root, "containers", toFileName(toContainerName(spec)), file);
  }

  logFilesOf(container: ProcessContainer): LogFile[] {
    const streams = ["stdout", "stderr"] as const;
    return streams.map((stream) => ({ stream, path: this.pathOf(container, `${stream}.log`) }));
  }

  async ensure(spec: ContainerSpec): Promise<EnsuredContainer> {
    const name = toContainerName(spec);
    const existing = await this.#read(name);
    if (existing !== undefined) {
      if (existing.instanceId === this.#instanceId && existing.spec.engineId === spec.engineId)
        return { containerId: existing.containerId, created: false };
      const message = `the container name ${name} is taken by a container of another installation or engine`;
      throw new RuntimeFailure("conflict", message);
    }
    // With the random part, a late call for a removed container never meets the next container of that name.
    const containerId = `${name}.${randomBytes(4).toString("hex")}`;
    const container = { containerId, instanceId: this.#instanceId, spec };
    await mkdir(this.pathOf(container), { recursive: true, mode: 0o700 });
    await writeJsonFile(this.pathOf(container, "container.json"), container);
    return { containerId, created: true };
  }

  async find(containerId: string): Promise<ProcessContainer | undefined> {
    if (!isFileName(containerId)) return undefined;
    const found = await this.#read(containerId.slice(0, containerId.lastIndexOf(".")));
    return found?.containerId === containerId && found.instanceId === this.#instanceId ? found : undefined;
  }

  async get(containerId: string): Promise<ProcessContainer> {
    const container = await this.find(containerId);
    if (container !== undefined) return container;
    throw new RuntimeFailure("no_such_container", `this installation has no container ${containerId}`);
  }

  async list(): Promise<ProcessContainer[]> {
    const names = await readdir(join(this.#root, "containers"));
    const found = await Promise.all(names.filter(isFileName).map((name) => this.#read(name)));
    const containers = found.filter((container) => container !== undefined);
    return containers.filter(({ instanceId }) => instanceId === this.#instanceId);
  }

  async remove(container: ProcessContainer): Promise<void> {
    await removeFolder(this.#root, this.pathOf(container));
  }

  /** The process of the container's latest start, running or not. undefined: the container was never started. */
  async readProcess(container: ProcessContainer): Promise<EngineProcess | undefined> {
    return readEngineProcess(this.pathOf(container, "pid"));
  }

  /** Pid files of children that have not become the container's process. */
  async listStrayPidFiles(container: ProcessContainer): Promise<string[]> {
    const names = await readdir(this.pathOf(container));
    return names.filter((name) => name.startsWith("pid.")).map((name) => this.pathOf(container, name));
  }

  /** Does nothing if the container has been removed. */
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

  async #read(name: string): Promise<ProcessContainer | undefined> {
    // A folder without container.json was left by a creation that was cut short. The next `ensure` completes it.
    const path = join(this.#root, "containers", toFileName(name), "container.json");
    return (await readJsonFile(path)) as ProcessContainer | undefined;
  }
}
