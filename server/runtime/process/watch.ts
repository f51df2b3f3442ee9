import { toErrorMessage } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { EventHub } from "../event-hub.ts";
import { killGroup } from "./group.ts";
import type { ProcessLogs } from "./logs.ts";
import { readRunState } from "./run.ts";
import type { ProcessRun } from "./run.ts";
import type { ProcessContainer, ProcessStore } from "./store.ts";

/** How soon the end of a process is seen that is not our child. */
const LOOK_EVERY_MS = 300;

interface Watched {
  container: ProcessContainer;
  run: ProcessRun;
  /** For our own children, whose end the system tells us with its exit code. */
  exited: Promise<number> | undefined;
  /** Begun once, shared by all who find it gone. */
  settling: Promise<void> | undefined;
}

export interface ProcessWatchOptions {
  store: ProcessStore;
  events: EventHub;
  logs: ProcessLogs;
  log: Pick<Log, "warn">;
}

/**
 * Sees processes end, be they our children or those of an orchestrator before us, and settles each end once:
 * what is left of the group is killed, as the end of a container's first process ends all others; the exit is
 * written down; the event is told.
 */
export class ProcessWatch {
  readonly #options: ProcessWatchOptions;
  readonly #watched = new Map<string, Watched>();
  readonly #timer: NodeJS.Timeout;
  #looking: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: ProcessWatchOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      this.#looking ??= this.#lookQuietly();
    }, LOOK_EVERY_MS);
    this.#timer.unref();
  }

  /** Takes over what earlier orchestrators started. */
  async adoptAll(): Promise<void> {
    for (const container of await this.#options.store.listContainers()) {
      const run = await this.#options.store.readRun(container);
      const exit = await this.#options.store.readExit(container);
      if (run !== undefined && exit?.startedAt !== run.startedAt) this.add(container, run);
    }
  }

  add(container: ProcessContainer, run: ProcessRun, exited?: Promise<number>): void {
    const watched: Watched = { container, run, exited, settling: undefined };
    this.#watched.set(container.containerId, watched);
    void exited?.then(() => this.#settleQuietly(watched));
  }

  /** One that is found running, whoever started it and whenever. */
  adopt(container: ProcessContainer, run: ProcessRun): void {
    const watched = this.#watched.get(container.containerId);
    if (watched?.run.startedAt !== run.startedAt) this.add(container, run);
  }

  /** Returns once the end of that run is settled; for a process that is known to be gone. */
  async settle(container: ProcessContainer, run: ProcessRun): Promise<void> {
    const watched = this.#watched.get(container.containerId);
    if (watched?.run.startedAt === run.startedAt) await this.#settle(watched);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#timer);
    await this.#looking;
    for (const { settling } of this.#watched.values()) await settling?.catch(() => undefined);
    this.#watched.clear();
  }

  async #lookQuietly(): Promise<void> {
    try {
      await this.#look();
    } catch (error) {
      this.#options.log.warn(
        { error: toErrorMessage(error) },
        "the engines' processes could not be looked at",
      );
    } finally {
      this.#looking = undefined;
    }
  }

  async #look(): Promise<void> {
    for (const watched of this.#watched.values()) {
      const isGone = watched.exited === undefined && (await readRunState(watched.run)) === "gone";
      if (isGone) await this.#settleQuietly(watched);
      for (const file of this.#options.store.logFilesOf(watched.container))
        await this.#options.logs.look(file);
    }
  }

  async #settleQuietly(watched: Watched): Promise<void> {
    if (this.#isClosed) return;
    try {
      await this.#settle(watched);
    } catch (error) {
      const { containerId } = watched.container;
      this.#options.log.warn({ containerId, error: toErrorMessage(error) }, "an engine's end is not settled");
    }
  }

  #settle(watched: Watched): Promise<void> {
    watched.settling ??= this.#settleOnce(watched).finally(() => (watched.settling = undefined));
    return watched.settling;
  }

  async #settleOnce({ container, run, exited }: Watched): Promise<void> {
    const { store, events } = this.#options;
    const exitCode = exited === undefined ? null : await exited;
    await killGroup(run);
    // Another call may have settled it while this one waited.
    if (this.#watched.get(container.containerId)?.run !== run) return;
    await store.writeExit(container, { startedAt: run.startedAt, exitCode });
    this.#watched.delete(container.containerId);
    events.emit({ kind: "die", engineId: container.spec.engineId, containerId: container.containerId });
  }
}
