import { randomBytes } from "node:crypto";
import { mkdir, readdir, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isMissing, readJsonFile, writeJsonFile } from "../../json/json-file.ts";
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
  /** Its environment lacks the values of `passedNames`. */
  spec: ContainerSpec;
  /**
   * Names of the environment that the container got with values of this service's own environment. The values may be
   * secrets, so they are not stored: each start takes them from the service's environment of that time.
   */
  passedNames: readonly string[];
}

/** What `container.json` holds. Containers of older versions have no `passedNames`, and hold all values. */
type StoredContainer = Omit<ProcessContainer, "passedNames"> & Partial<Pick<ProcessContainer, "passedNames">>;

/** Every other name in a container of an older version was passed through. */
const NOT_PASSED = ["ENGINE_KEY_HASH", "SQLITE_DB_PATH", "CATALOG_DIR"];

/** How the process that started at `startedAt` ended. */
export interface ProcessExit {
  startedAt: string;
  /** null: no replica was its parent when it ended, so the code is unknown. */
  exitCode: number | null;
}

export interface ContainerStoreOptions {
  root: string;
  instanceId: string;
  /** The values that engines get from this service's own environment, by name. */
  passthrough: Readonly<Record<string, string>>;
}

/**
 * The containers of the process runtime, as files in `<root>/containers/<name>/`:
 *
 *     container.json           the container; the folder's name is the container's, and so the mutex of `ensure`
 *     start                    the token of the latest start
 *     pid.<token>              written by a child that has not yet checked whether its start is the latest
 *     pid                      written by the engine's process, with the token of its start
 *     exit.json                written by the replica that noticed the end of the process
 *     stdout.log, stderr.log, tmp/
 *
 * The empty files `<root>/names/<engine>/<name>` find the containers of one engine without a look at all others. Such a
 * file exists before its container and after it, so it alone says nothing.
 */
export class ContainerStore {
  readonly #root: string;
  readonly #instanceId: string;
  readonly #passthrough: Readonly<Record<string, string>>;

  constructor({ root, instanceId, passthrough }: ContainerStoreOptions) {
    this.#root = root;
    this.#instanceId = instanceId;
    this.#passthrough = passthrough;
  }

  /** The folder of all containers' folders. */
  get containersPath(): string {
    return join(this.#root, "containers");
  }

  async open(): Promise<void> {
    for (const folder of [this.containersPath, join(this.#root, "names")]) {
      await mkdir(folder, { recursive: true, mode: 0o700 });
    }
    await this.#adoptOlderContainers();
  }

  /** The container's name, which is also the name of its folder. */
  nameOf({ spec }: Pick<ProcessContainer, "spec">): string {
    return toFileName(toContainerName(spec));
  }

  /** The path of a file in the container's folder, or of the folder. */
  pathOf({ spec }: Pick<ProcessContainer, "spec">, file = ""): string {
    return join(this.containersPath, this.nameOf({ spec }), file);
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
    const passedNames = Object.keys(spec.environment).filter((name) =>
      Object.hasOwn(this.#passthrough, name),
    );
    const container = toContainer({ containerId, instanceId: this.#instanceId, spec }, passedNames);
    await this.#addName(container);
    await mkdir(this.pathOf(container), { recursive: true, mode: 0o700 });
    await writeJsonFile(this.pathOf(container, "container.json"), container);
    return { containerId, created: true };
  }

  /** The container's environment, with the values that the service passes through now. */
  toEnvironment({ spec, passedNames }: ProcessContainer): Record<string, string> {
    const passed = passedNames.flatMap((name) => {
      const value = this.#passthrough[name];
      return value === undefined ? [] : [[name, value] as const];
    });
    return { ...spec.environment, ...Object.fromEntries(passed) };
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

  /** The containers of one engine. */
  async listOf(engineId: string): Promise<ProcessContainer[]> {
    return this.#readOwn(await readFolder(this.#namesPath(engineId)));
  }

  async list(): Promise<ProcessContainer[]> {
    return this.#readOwn(await readFolder(this.containersPath));
  }

  async remove(container: ProcessContainer): Promise<void> {
    await removeFolder(this.#root, this.pathOf(container));
    const names = this.#namesPath(container.spec.engineId);
    await rm(join(names, this.nameOf(container)), { force: true });
    // It stays if the engine has another container.
    await rmdir(names).catch(() => undefined);
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

  #namesPath(engineId: string): string {
    return join(this.#root, "names", toFileName(engineId));
  }

  async #addName(container: Pick<ProcessContainer, "spec">): Promise<void> {
    const folder = this.#namesPath(container.spec.engineId);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeFile(join(folder, this.nameOf(container)), "", { mode: 0o600 });
  }

  /** One after the other, so that a listing of a thousand containers holds one descriptor. */
  async #readOwn(names: readonly string[]): Promise<ProcessContainer[]> {
    const containers: ProcessContainer[] = [];
    for (const name of names.filter(isFileName)) {
      const container = await this.#read(name);
      if (container?.instanceId === this.#instanceId) containers.push(container);
    }
    return containers;
  }

  async #read(name: string): Promise<ProcessContainer | undefined> {
    const stored = await this.#readStored(name);
    return stored && toContainer(stored, stored.passedNames ?? findPassedNames(stored));
  }

  async #readStored(name: string): Promise<StoredContainer | undefined> {
    // A folder without container.json was left by a creation that was cut short. The next `ensure` completes it.
    const path = join(this.containersPath, toFileName(name), "container.json");
    return (await readJsonFile(path)) as StoredContainer | undefined;
  }

  /** Gives containers of older versions their name file, and removes the secrets from their container.json. */
  async #adoptOlderContainers(): Promise<void> {
    for (const name of (await readFolder(this.containersPath)).filter(isFileName)) {
      const stored = await this.#readStored(name);
      if (stored === undefined) continue;
      await this.#addName(stored);
      if (stored.passedNames !== undefined) continue;
      const container = toContainer(stored, findPassedNames(stored));
      await writeJsonFile(this.pathOf(container, "container.json"), container);
    }
  }
}

function findPassedNames({ spec }: StoredContainer): string[] {
  return Object.keys(spec.environment).filter((name) => !NOT_PASSED.includes(name));
}

function toContainer(stored: StoredContainer, passedNames: readonly string[]): ProcessContainer {
  const kept = Object.entries(stored.spec.environment).filter(([name]) => !passedNames.includes(name));
  return { ...stored, spec: { ...stored.spec, environment: Object.fromEntries(kept) }, passedNames };
}

/** A missing folder is empty. */
async function readFolder(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (isMissing(error)) return [];
    throw error;
  }
}
