import { findEngineById, updateEngineIf, afterMs } from "../../db/engines.ts";
import { toErrorMessage } from "../errors.ts";
import { convergeEngine, type ConvergeContext, type ConvergeOutcome } from "./converge-engine.ts";

interface Drive {
  done: Promise<ConvergeOutcome>;
  /** Somebody asked again while it ran: what they wrote may have come after its last look. */
  again: boolean;
  nap: AbortController;
}

export interface DriveOptions {
  /** A healthy answer is enough; see ConvergeInput. */
  quick?: boolean;
}

const UNREACHABLE_RETRY_MS = 2_000;

/** Runs `convergeEngine` at most once at a time per engine of this process. */
export class Converger {
  readonly #ctx: ConvergeContext;
  readonly #drives = new Map<string, Drive>();
  readonly #closing = new AbortController();

  constructor(ctx: ConvergeContext) {
    this.#ctx = ctx;
  }

  /** Engines being driven now. */
  get active(): number {
    return this.#drives.size;
  }

  /**
   * Drives the engine until there is nothing left to do for now. Called after an intent was written: a drive
   * that is under way is woken, looks again, and is the one returned. Throws what a broken database throws.
   */
  async drive(engineId: string, options: DriveOptions = {}): Promise<ConvergeOutcome> {
    const running = this.#drives.get(engineId);
    if (running !== undefined) {
      running.again = true;
      running.nap.abort();
      return running.done;
    }
    const drive: Drive = { done: Promise.resolve("settled"), again: false, nap: new AbortController() };
    this.#drives.set(engineId, drive);
    drive.done = this.#run(engineId, drive, options.quick ?? false);
    return drive.done;
  }

  /** The drive under way, or a new one; unlike `drive` it asks for no further look. */
  async join(engineId: string): Promise<ConvergeOutcome> {
    return this.#drives.get(engineId)?.done ?? this.drive(engineId);
  }

  /** Starts a drive and does not wait for it; what it throws is logged. */
  hint(engineId: string, options: DriveOptions = {}): void {
    if (this.#closing.signal.aborted) return;
    this.drive(engineId, options).catch((error: unknown) => {
      this.#ctx.log.error({ engineId, error: toErrorMessage(error) }, "converge failed");
    });
  }

  /** Looks at the engine now, process and all. undefined: it is gone. */
  async refresh(engineId: string): Promise<{ generation: number; status: string } | undefined> {
    await this.drive(engineId);
    return findEngineById(this.#ctx.db, engineId);
  }

  /** Starts no step any more and waits for the ones under way; what is unfinished the next process finishes. */
  async close(): Promise<void> {
    this.#closing.abort();
    const drives = [...this.#drives.values()];
    for (const drive of drives) drive.nap.abort();
    await Promise.allSettled(drives.map((drive) => drive.done));
  }

  async #run(engineId: string, drive: Drive, quick: boolean): Promise<ConvergeOutcome> {
    try {
      let outcome: ConvergeOutcome;
      do {
        drive.again = false;
        drive.nap = new AbortController();
        outcome = await this.#converge(engineId, drive, quick && !drive.again);
      } while (drive.again && outcome !== "gone" && !this.#closing.signal.aborted);
      return outcome;
    } finally {
      this.#drives.delete(engineId);
    }
  }

  async #converge(engineId: string, drive: Drive, quick: boolean): Promise<ConvergeOutcome> {
    const outcome = await convergeEngine(this.#ctx, {
      engineId,
      quick,
      nudged: () => {
        if (drive.nap.signal.aborted) drive.nap = new AbortController();
        return drive.nap.signal;
      },
      closing: this.#closing.signal,
    });
    if (outcome === "unreachable") {
      await updateEngineIf(this.#ctx.db, { id: engineId }, { nextCheckAt: afterMs(UNREACHABLE_RETRY_MS) });
    }
    return outcome;
  }
}
