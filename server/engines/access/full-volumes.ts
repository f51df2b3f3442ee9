import { DomainError } from "../../errors.ts";

/** The measured volume of an engine, over its limit. */
export interface FullVolume {
  usedMb: number;
  limitMb: number;
}

/** The engines whose volumes were over their limit at the last measurement. */
export class FullVolumes {
  #full: ReadonlyMap<string, FullVolume> = new Map();

  /** Returns the engines that were not in the last measurement. */
  replace(full: ReadonlyMap<string, FullVolume>): string[] {
    const added = [...full.keys()].filter((engineId) => !this.#full.has(engineId));
    this.#full = full;
    return added;
  }

  /** Throws QUOTA_EXCEEDED. Only for new turns: calls may be what frees the space. */
  requireRoom(engineId: string): void {
    const found = this.#full.get(engineId);
    if (found === undefined) return;
    throw new DomainError(
      "QUOTA_EXCEEDED",
      `the engine's volume holds ${found.usedMb} MiB and may hold ${found.limitMb}: let the engine delete data, or raise the policy's resources.volumeMb`,
    );
  }
}
