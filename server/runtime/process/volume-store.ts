import { access, mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { readJsonFile, writeJsonFile } from "../../json/json-file.ts";
import { RuntimeFailure, type VolumeObservation } from "../engine-runtime.ts";
import { readFolderBytes } from "./folder-bytes.ts";
import { isFileName, toFileName } from "./names.ts";
import { removeFolder } from "./remove-folder.ts";

interface StoredVolume {
  instanceId: string;
  engineId: string;
}

/**
 * The volumes of the process runtime, and this installation's marker, as files:
 *
 *     <root>/volumes/<volume>/         the engine's data
 *     <root>/volumes/<volume>.json     the engine and the installation that the volume belongs to
 *     <root>/marker-<instance>.json
 */
export class VolumeStore {
  readonly #root: string;
  readonly #instanceId: string;

  constructor(root: string, instanceId: string) {
    this.#root = root;
    this.#instanceId = instanceId;
  }

  async open(): Promise<void> {
    await mkdir(join(this.#root, "volumes"), { recursive: true, mode: 0o700 });
  }

  pathOf(volumeName: string): string {
    return join(this.#root, "volumes", toFileName(volumeName));
  }

  async ensure(volumeName: string, engineId: string): Promise<void> {
    const existing = await this.#readOwn(volumeName);
    const volume: StoredVolume = { instanceId: this.#instanceId, engineId };
    if (existing === undefined) await writeJsonFile(`${this.pathOf(volumeName)}.json`, volume);
    await mkdir(this.pathOf(volumeName), { recursive: true, mode: 0o700 });
  }

  async has(volumeName: string): Promise<boolean> {
    return (await this.#readOwn(volumeName)) !== undefined && exists(this.pathOf(volumeName));
  }

  /** The engine that the volume was made for. undefined: the volume does not exist. */
  async findEngine(volumeName: string): Promise<string | undefined> {
    return (await this.#readOwn(volumeName))?.engineId;
  }

  async list(): Promise<VolumeObservation[]> {
    const entries = await readdir(join(this.#root, "volumes"), { withFileTypes: true });
    const observations: VolumeObservation[] = [];
    for (const { name } of entries.filter((entry) => entry.isDirectory() && isFileName(entry.name))) {
      const volume = await this.#read(name);
      if (volume?.instanceId !== this.#instanceId) continue;
      observations.push({ volumeName: name, engineId: volume.engineId });
    }
    return observations;
  }

  async measure(): Promise<Map<string, number>> {
    const sizes = new Map<string, number>();
    for (const { volumeName } of await this.list()) {
      sizes.set(volumeName, await readFolderBytes(this.pathOf(volumeName)));
    }
    return sizes;
  }

  async remove(volumeName: string): Promise<void> {
    if ((await this.#readOwn(volumeName)) === undefined) return;
    await removeFolder(this.#root, this.pathOf(volumeName));
    await rm(`${this.pathOf(volumeName)}.json`, { force: true });
  }

  async createMarker(): Promise<void> {
    await writeJsonFile(this.markerPath, { instanceId: this.#instanceId });
  }

  async hasMarker(): Promise<boolean> {
    return exists(this.markerPath);
  }

  async removeMarker(): Promise<void> {
    await rm(this.markerPath, { force: true });
  }

  get markerPath(): string {
    return join(this.#root, `marker-${toFileName(this.#instanceId)}.json`);
  }

  async #read(volumeName: string): Promise<StoredVolume | undefined> {
    return (await readJsonFile(`${this.pathOf(volumeName)}.json`)) as StoredVolume | undefined;
  }

  /** undefined: the volume does not exist. Throws `conflict` for a volume of another installation. */
  async #readOwn(volumeName: string): Promise<StoredVolume | undefined> {
    const volume = await this.#read(volumeName);
    if (volume === undefined || volume.instanceId === this.#instanceId) return volume;
    throw new RuntimeFailure("conflict", `the volume ${volumeName} belongs to another installation`);
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
