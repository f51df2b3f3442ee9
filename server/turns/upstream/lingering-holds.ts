import type { Config } from "../../config/config.ts";
import type { BaseContext } from "../../context.ts";
import type { EngineHold } from "../../engines/access/hold-engine.ts";
import type { Reconciler } from "../../engines/reconcile/reconciler.ts";
import { toErrorMessage } from "../../errors.ts";
import type { TurnTiming } from "../model/turn-timing.ts";

export interface LingeringHoldsOptions extends Pick<BaseContext, "clock" | "log"> {
  config: Pick<Config, "turnIdleTimeoutMs">;
  reconciler: Pick<Reconciler, "observeNow">;
  turnTiming: Pick<TurnTiming, "lingerCheckMs">;
}

/** A turn that has ended here. */
export interface EndedTurn {
  turnId: string;
  taskId: string;
  /** The reason of the turn's end, or its status if there is no reason. */
  reason: string;
}

interface LingeringHold extends EndedTurn {
  engineId: string;
  generation: number;
  /** In milliseconds. */
  endedAt: number;
  until: number;
  release(): void;
}

/**
 * Holds of turns that ended while their engine may still be at work. The engine never reports when that work ends. So
 * a hold stays until the engine accepts the task again, its generation moves, an operation interrupts the holders, or
 * the idle timeout passes.
 */
export class LingeringHolds {
  readonly #options: LingeringHoldsOptions;
  readonly #holds = new Set<LingeringHold>();

  constructor(options: LingeringHoldsOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#holds.size;
  }

  /** The turn that has ended here, and which the engine may still work on. undefined: there is none for this task. */
  find(engineId: string, taskId: string): Readonly<LingeringHold> | undefined {
    for (const hold of this.#holds) {
      if (hold.engineId === engineId && hold.taskId === taskId) return hold;
    }
    return undefined;
  }

  /** Takes the hold over, and releases it in time. */
  add(held: EngineHold, turn: EndedTurn): void {
    const { engineId, generation, interrupted } = held;
    const endedAt = this.#options.clock.now();
    const until = endedAt + this.#options.config.turnIdleTimeoutMs;
    const released = new AbortController();
    const release = () => {
      if (!this.#holds.delete(hold)) return;
      interrupted.removeEventListener("abort", release);
      released.abort();
      held.release();
    };
    const hold: LingeringHold = { ...turn, engineId, generation, endedAt, until, release };
    this.#holds.add(hold);
    // The live turn must not stay in memory as the user of the hold.
    held.passTo({
      toHoldView: () => ({ kind: "ended_turn", ...turn, until: new Date(until).toISOString() }),
    });
    interrupted.addEventListener("abort", release, { once: true });
    if (interrupted.aborted) release();
    else void this.#watch(hold, released.signal);
  }

  /** The engine accepted a turn, so its earlier work for that task and that of its older processes is over. */
  releaseFinished(accepted: Pick<LingeringHold, "engineId" | "generation" | "taskId">): void {
    for (const hold of this.#holds) {
      if (hold.engineId !== accepted.engineId) continue;
      if (hold.taskId === accepted.taskId || hold.generation < accepted.generation) hold.release();
    }
  }

  close(): void {
    for (const hold of this.#holds) hold.release();
  }

  async #watch(hold: LingeringHold, released: AbortSignal): Promise<void> {
    const { clock, turnTiming } = this.#options;
    const { until } = hold;
    while (clock.now() < until && !released.aborted) {
      await clock.sleep(Math.min(turnTiming.lingerCheckMs, until - clock.now()), released).catch(() => {
        // Released: the loop's condition sees it.
      });
      if (!released.aborted && (await this.#hasMoved(hold))) break;
    }
    hold.release();
  }

  async #hasMoved(hold: LingeringHold): Promise<boolean> {
    try {
      const engine = await this.#options.reconciler.observeNow(hold.engineId);
      return engine?.generation !== hold.generation;
    } catch (error) {
      // The process may live on, so keep the hold.
      this.#options.log.debug(
        { engineId: hold.engineId, error: toErrorMessage(error) },
        "cannot check the engine of a lingering hold",
      );
      return false;
    }
  }
}
