import type { HeldEngine } from "../../engines/access/acquire-engine.ts";
import { toErrorMessage } from "../../errors.ts";
import type { TurnRegistryOptions, TurnTiming } from "../turn-registry.ts";

interface Lingering {
  engineId: string;
  generation: number;
  taskId: string;
  release(): void;
}

/**
 * Holds of turns that ended before their engine was done. The engine may still be at work, and nothing tells when it
 * stops: the hold stays until it accepts the task again, its process is another, somebody insists, or time is up.
 */
export class LingeringHolds {
  readonly #options: TurnRegistryOptions;
  readonly #timing: TurnTiming;
  readonly #holds = new Set<Lingering>();

  constructor(options: TurnRegistryOptions, timing: TurnTiming) {
    this.#options = options;
    this.#timing = timing;
  }

  get size(): number {
    return this.#holds.size;
  }

  /** Takes over a hold and gives it back in its time. */
  add(use: HeldEngine, taskId: string): void {
    const leaving = new AbortController();
    const { engineId, generation } = use;
    const release = () => {
      if (!this.#holds.delete(lingering)) return;
      use.interrupted.removeEventListener("abort", release);
      leaving.abort();
      use.release();
    };
    const lingering: Lingering = { engineId, generation, taskId, release };
    this.#holds.add(lingering);
    use.interrupted.addEventListener("abort", release, { once: true });
    if (use.interrupted.aborted) release();
    else void this.#watch(lingering, leaving.signal);
  }

  /** The engine took a turn: it is done with what it did for that task, and with all that older processes did. */
  accepted(turn: Pick<Lingering, "engineId" | "generation" | "taskId">): void {
    for (const hold of this.#holds) {
      if (hold.engineId !== turn.engineId) continue;
      if (hold.taskId === turn.taskId || hold.generation < turn.generation) hold.release();
    }
  }

  close(): void {
    for (const hold of this.#holds) hold.release();
  }

  async #watch(hold: Lingering, signal: AbortSignal): Promise<void> {
    const { clock, config } = this.#options;
    const until = clock.now() + config.turnIdleTimeoutMs;
    while (clock.now() < until && !signal.aborted) {
      await clock.sleep(Math.min(this.#timing.lingerCheckMs, until - clock.now()), signal).catch(() => {
        // Given back meanwhile: the loop's condition sees it.
      });
      if (!signal.aborted && (await this.#hasMoved(hold))) break;
    }
    hold.release();
  }

  async #hasMoved(hold: Lingering): Promise<boolean> {
    try {
      const engine = await this.#options.refreshEngine(hold.engineId);
      return engine?.generation !== hold.generation;
    } catch (error) {
      // Unknown is not gone.
      this.#options.log.debug(
        { engineId: hold.engineId, error: toErrorMessage(error) },
        "cannot look after a lingering hold",
      );
      return false;
    }
  }
}
