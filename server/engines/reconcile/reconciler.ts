import { findEngineById, updateEngineIf, afterMs } from "../../../db/engines.ts";
import { abortable } from "../../time/abortable.ts";
import { toErrorMessage } from "../../errors.ts";
import type { BootsUnderWay } from "./apply-step.ts";
import type { ReconcileContext } from "./reconcile-context.ts";
import { reconcileEngine, type ReconcileOutcome } from "./reconcile-engine.ts";

interface Drive {
  done: Promise<ReconcileOutcome>;
  /** Somebody asked again while it ran: what they wrote may have come after its last look. */
  again: boolean;
  /** Something was seen to happen since the runtime was last looked at. */
  hinted: boolean;
  nap: AbortController;
}

export interface DriveOptions {
  /** A healthy answer is enough; see ConvergeInput. */
  quick?: boolean;
}

const UNREACHABLE_RETRY_MS = 2_000;
/** A stop under way may have an hour of grace; it is carried out without us, and the next process goes on from there. */
const CLOSE_MS = 10_000;
const REFRESH_MS = 1_000;

/** Runs `reconcileEngine` at most once at a time per engine of this process. */
export class Reconciler {
  readonly #ctx: ReconcileContext;
  readonly #drives = new Map<string, Drive>();
  readonly #closing = new AbortController();
  readonly #boots: BootsUnderWay = { count: 0 };
  #looks = 0;

  constructor(ctx: ReconcileContext) {
    this.#ctx = ctx;
  }

  /** Looks of the periodic pass that are under way. */
  get looks(): number {
    return this.#looks;
  }

  /** Starts a look of the periodic pass, unless the engine is being driven already. */
  look(engineId: string): void {
    if (this.#drives.has(engineId)) return;
    this.#looks += 1;
    this.#start(engineId, { quick: true }, () => {
      this.#looks -= 1;
    });
  }

  /**
   * Drives the engine until there is nothing left to do for now. Called after an intent was written: a drive
   * that is under way is woken, looks again, and is the one returned. Throws what a broken database throws.
   */
  async drive(engineId: string, options: DriveOptions = {}): Promise<ReconcileOutcome> {
    const running = this.#drives.get(engineId);
    if (running !== undefined) {
      running.again = true;
      running.nap.abort();
      return running.done;
    }
    const drive: Drive = {
      done: Promise.resolve("settled"),
      again: false,
      hinted: false,
      nap: new AbortController(),
    };
    this.#drives.set(engineId, drive);
    drive.done = this.#run(engineId, drive, options.quick ?? false);
    return drive.done;
  }

  /** The drive under way, or a new one; unlike `drive` it asks for no further look. */
  async join(engineId: string): Promise<ReconcileOutcome> {
    return this.#drives.get(engineId)?.done ?? this.drive(engineId);
  }

  /** Starts a drive, as after an intent, and does not wait for it; what it throws is logged. */
  begin(engineId: string): void {
    this.#start(engineId, {}, () => {});
  }

  /**
   * Something happened to the engine's container. A drive that is under way is woken to look; where it looks no
   * more, the look is a drive of its own, and whoever waits for the first one does not wait for it.
   */
  hint(engineId: string): void {
    const running = this.#drives.get(engineId);
    if (running === undefined) return this.begin(engineId);
    running.hinted = true;
    running.nap.abort();
  }

  #start(engineId: string, options: DriveOptions, onEnd: () => void): void {
    if (this.#closing.signal.aborted) return onEnd();
    this.drive(engineId, options)
      .catch((error: unknown) => {
        this.#ctx.log.error({ engineId, error: toErrorMessage(error) }, "converge failed");
      })
      .finally(onEnd);
  }

  /**
   * Looks at the engine now, process and all. undefined: it is gone. A look that turns into a boot is not waited
   * for: that it boots is on record by then.
   */
  async refresh(engineId: string): Promise<{ generation: number; status: string } | undefined> {
    const patience = AbortSignal.timeout(REFRESH_MS);
    await abortable(this.drive(engineId), patience).catch((error: unknown) => {
      if (!patience.aborted) throw error;
    });
    return findEngineById(this.#ctx.db, engineId);
  }

  /** Starts no step any more and waits for the ones under way; what is unfinished the next process finishes. */
  async close(): Promise<void> {
    this.#closing.abort();
    const drives = [...this.#drives.values()];
    for (const drive of drives) drive.nap.abort();
    const ended = Promise.allSettled(drives.map((drive) => drive.done));
    await abortable(ended, AbortSignal.timeout(CLOSE_MS)).catch(() => {
      this.#ctx.log.warn({ drives: this.#drives.size }, "left a runtime call under way");
    });
  }

  async #run(engineId: string, drive: Drive, quick: boolean): Promise<ReconcileOutcome> {
    let isQuick = quick;
    let outcome: ReconcileOutcome;
    try {
      do {
        drive.again = false;
        drive.nap = new AbortController();
        outcome = await this.#converge(engineId, drive, isQuick);
        // Whoever asks again has seen something happen, and wants more than a healthy answer.
        isQuick = false;
      } while (drive.again && outcome !== "gone" && !this.#closing.signal.aborted);
    } finally {
      this.#drives.delete(engineId);
    }
    if (drive.hinted && outcome !== "gone") this.begin(engineId);
    return outcome;
  }

  async #converge(engineId: string, drive: Drive, quick: boolean): Promise<ReconcileOutcome> {
    const outcome = await reconcileEngine(this.#ctx, {
      engineId,
      quick,
      nudged: () => {
        if (drive.nap.signal.aborted) drive.nap = new AbortController();
        return drive.nap.signal;
      },
      boots: this.#boots,
      looking: () => {
        drive.hinted = false;
      },
      closing: this.#closing.signal,
    });
    if (outcome === "unreachable" || outcome === "refused") {
      await updateEngineIf(this.#ctx.db, { id: engineId }, { nextCheckAt: afterMs(UNREACHABLE_RETRY_MS) });
    }
    return outcome;
  }
}
