import { setImmediate } from "node:timers/promises";
import { toErrorMessage } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { EventHub } from "../event-hub.ts";
import type { ContainerStore, ProcessContainer } from "./container-store.ts";
import { readProcessState, type EngineProcess } from "./engine-process.ts";
import type { ProcessLogs } from "./logs.ts";
import type { EngineRemains } from "./remains.ts";

/** The end of a process that is not our child is noticed within this time. */
const POLL_MS = 300;
/** How many engines are looked at before other work of this replica gets its turn: less than 1 ms. */
const READS_PER_TURN = 32;

/** The pause before another try to record an end. The try itself may take seconds, if a process hangs in the kernel. */
const RETRY_MS = 1_000;

interface WatchedProcess {
  container: ProcessContainer;
  engineProcess: EngineProcess;
  /** The exit code, which the system reports for our own children only. */
  exited: Promise<number | undefined> | undefined;
  /** The recording of the end that runs now. All callers share it. */
  recording: Promise<void> | undefined;
  /** Our own child has exited. */
  hasExited: boolean;
  /** When the recording that failed is tried again. undefined: none has failed. */
  retryAt: number | undefined;
}

export interface ProcessWatchOptions {
  store: ContainerStore;
  remains: Pick<EngineRemains, "end">;
  events: EventHub;
  logs: ProcessLogs;
  log: Pick<Log, "warn">;
}

/**
 * Notices the end of every engine's process, also of processes that an earlier replica started. Records each end once:
 * ends whatever the engine has left, as the end of a container's first process does; writes the exit; emits `die`.
 */
export class ProcessWatch {
  readonly #options: ProcessWatchOptions;
  readonly #watched = new Map<string, WatchedProcess>();
  readonly #timer: NodeJS.Timeout;
  #polling: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: ProcessWatchOptions) {
    this.#options = options;
    this.#timer = setInterval(() => {
      this.#polling ??= this.#pollAndLog();
    }, POLL_MS);
    this.#timer.unref();
  }

  /** Watches every process whose end is not recorded yet. */
  async adoptAll(): Promise<void> {
    const { store } = this.#options;
    for (const container of await store.list()) {
      const engineProcess = await store.readProcess(container);
      const exit = await store.readExit(container);
      const hasEnd = exit?.startedAt === engineProcess?.startedAt;
      if (engineProcess !== undefined && !hasEnd) this.add(container, engineProcess);
    }
  }

  add(container: ProcessContainer, engineProcess: EngineProcess, exited?: Promise<number | undefined>): void {
    const watched: WatchedProcess = {
      container,
      engineProcess,
      exited,
      recording: undefined,
      hasExited: false,
      retryAt: undefined,
    };
    this.#watched.set(container.containerId, watched);
    void exited?.then((code) => {
      if (code === undefined) {
        // The end of the process will not be reported. So it is polled from now on, like one of an earlier replica.
        watched.exited = undefined;
        return undefined;
      }
      watched.hasExited = true;
      return this.#recordAndLog(watched);
    });
  }

  /** Watches a process that was found running, unless it is watched already. */
  adopt(container: ProcessContainer, engineProcess: EngineProcess): void {
    const watched = this.#watched.get(container.containerId);
    if (watched?.engineProcess.startedAt !== engineProcess.startedAt) this.add(container, engineProcess);
  }

  /** For a process that is known to be gone: returns once its end is recorded. */
  async recordEnd(container: ProcessContainer, engineProcess: EngineProcess): Promise<void> {
    const watched = this.#watched.get(container.containerId);
    if (watched?.engineProcess.startedAt === engineProcess.startedAt) await this.#record(watched);
  }

  /** The end could not be recorded so far, because something of the engine still runs. It is tried again. */
  isEndOverdue({ containerId }: ProcessContainer, { startedAt }: EngineProcess): boolean {
    const watched = this.#watched.get(containerId);
    return watched?.engineProcess.startedAt === startedAt && watched.retryAt !== undefined;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#timer);
    await this.#polling;
    for (const { recording } of this.#watched.values()) await recording?.catch(() => undefined);
    this.#watched.clear();
  }

  async #pollAndLog(): Promise<void> {
    try {
      await this.#poll();
    } catch (error) {
      this.#options.log.warn({ error: toErrorMessage(error) }, "cannot observe the engines' processes");
    } finally {
      this.#polling = undefined;
    }
  }

  async #poll(): Promise<void> {
    const { store, logs } = this.#options;
    let reads = 0;
    for (const watched of this.#watched.values()) {
      if ((reads += 1) % READS_PER_TURN === 0) await setImmediate();
      if (watched.retryAt !== undefined) this.#retry(watched, watched.retryAt);
      else if (await hasEnded(watched)) await this.#recordAndLog(watched);
      for (const file of store.logFilesOf(watched.container)) await logs.sample(file);
    }
  }

  /** Not waited for: one engine that cannot be ended must not delay the others' ends. */
  #retry(watched: WatchedProcess, retryAt: number): void {
    if (watched.recording !== undefined || performance.now() < retryAt) return;
    void this.#recordAndLog(watched);
  }

  async #recordAndLog(watched: WatchedProcess): Promise<void> {
    if (this.#isClosed) return;
    try {
      await this.#record(watched);
    } catch (error) {
      const { containerId } = watched.container;
      const fields = { containerId, error: toErrorMessage(error) };
      this.#options.log.warn(fields, "cannot record the end of an engine's process");
    }
  }

  #record(watched: WatchedProcess): Promise<void> {
    watched.recording ??= this.#recordOnce(watched)
      .catch((error: unknown) => {
        watched.retryAt = performance.now() + RETRY_MS;
        throw error;
      })
      .finally(() => (watched.recording = undefined));
    return watched.recording;
  }

  async #recordOnce({ container, engineProcess, exited }: WatchedProcess): Promise<void> {
    const { store, remains, events } = this.#options;
    const exitCode = (await exited) ?? null;
    await remains.end(container, engineProcess);
    // The end may have been recorded, or the container started again, during the wait.
    if (this.#watched.get(container.containerId)?.engineProcess !== engineProcess) return;
    await store.writeExit(container, { startedAt: engineProcess.startedAt, exitCode });
    this.#watched.delete(container.containerId);
    events.emit({ kind: "die", engineId: container.spec.engineId, containerId: container.containerId });
  }
}

async function hasEnded({ exited, hasExited, engineProcess }: WatchedProcess): Promise<boolean> {
  if (exited !== undefined) return hasExited;
  return (await readProcessState(engineProcess)) === "gone";
}
