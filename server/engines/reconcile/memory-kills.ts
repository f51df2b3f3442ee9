import type { EngineRowAt } from "../../../db/engines.ts";
import type { Clock } from "../../time/clock.ts";

/** A kill explains an exit that is observed at most this long after it. */
const RECENT_MS = 30_000;

/**
 * The engines of which the kernel has just killed a process for lack of memory, by the runtime's `oom` events. A runtime
 * that restarts a container at once may forget how its last process ended.
 */
export class MemoryKills {
  readonly #killedAt = new Map<string, number>();
  readonly #clock: Clock;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  add(engineId: string): void {
    const now = this.#clock.now();
    for (const [id, killedAt] of this.#killedAt) {
      if (now - killedAt > RECENT_MS) this.#killedAt.delete(id);
    }
    this.#killedAt.set(engineId, now);
  }

  /** Whether a recent kill is newer than the boot and the process on record. An older one ended an earlier process. */
  hasKilled(row: EngineRowAt): boolean {
    const killedAt = this.#killedAt.get(row.id);
    if (killedAt === undefined) return false;
    const ageMs = this.#clock.now() - killedAt;
    // Ages, because the database has another clock.
    return ageMs <= Math.min(RECENT_MS, toAgeMs(row, row.bootStartedAt), toAgeMs(row, row.processStartedAt));
  }
}

function toAgeMs(row: EngineRowAt, at: string | null): number {
  return at === null ? Infinity : Date.parse(row.now) - Date.parse(at);
}
