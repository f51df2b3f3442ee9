import { Worker } from "node:worker_threads";

export interface SpawnOptions {
  /** The arguments of /bin/sh. */
  args: readonly string[];
  environment: Readonly<Record<string, string>>;
  /** Open file descriptors. */
  stdout: number;
  stderr: number;
}

export type SpawnRequest = ({ kind: "spawn"; id: number } & SpawnOptions) | { kind: "kill"; id: number };
export type SpawnAnswer =
  | { kind: "spawned"; id: number }
  | { kind: "failed"; id: number; why: string }
  | { kind: "exited"; id: number; code: number };

export interface Child {
  /** Resolves with the exit code. After a kill it is 128 plus the signal's number, as in shells and Docker. */
  readonly exited: Promise<number>;
  readonly hasExited: boolean;
  kill(): void;
}

/**
 * Starts processes in a thread of its own. A spawn blocks its thread until the system has begun the program: 80 ms and
 * more while many processes want the processor. In the main thread, every call of every caller would wait for that.
 */
export class Spawner implements AsyncDisposable {
  readonly #starting = new Map<number, PromiseWithResolvers<void>>();
  readonly #running = new Map<number, (code: number) => void>();
  #worker: Worker | undefined;
  #lastId = 0;

  /** Resolves once the process runs. */
  async spawn(options: SpawnOptions): Promise<Child> {
    const worker = (this.#worker ??= this.#openWorker());
    const id = (this.#lastId += 1);
    const starting = Promise.withResolvers<void>();
    const exited = Promise.withResolvers<number>();
    let hasExited = false;
    this.#starting.set(id, starting);
    this.#running.set(id, (code) => {
      hasExited = true;
      exited.resolve(code);
    });
    worker.ref();
    send(worker, { kind: "spawn", id, ...options });
    await starting.promise;
    return {
      exited: exited.promise,
      get hasExited() {
        return hasExited;
      },
      kill: () => send(worker, { kind: "kill", id }),
    };
  }

  /** The processes continue. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker?.terminate();
  }

  #openWorker(): Worker {
    const worker = new Worker(new URL("spawn-worker.ts", import.meta.url));
    worker.on("message", (answer: SpawnAnswer) => this.#onAnswer(answer));
    // Processes that run by then are found by their pid files, like those of an earlier replica.
    worker.once("error", (error) => this.#onLost(error));
    worker.once("exit", () => this.#onLost(new Error("the thread that starts processes has ended")));
    return worker;
  }

  #onAnswer(answer: SpawnAnswer): void {
    const { id } = answer;
    const starting = this.#starting.get(id);
    if (answer.kind === "exited") {
      this.#running.get(id)?.(answer.code);
      this.#running.delete(id);
      return;
    }
    this.#starting.delete(id);
    // Running engines must not keep this process alive.
    if (this.#starting.size === 0) this.#worker?.unref();
    if (answer.kind === "spawned") starting?.resolve();
    else {
      this.#running.delete(id);
      starting?.reject(new Error(answer.why));
    }
  }

  #onLost(error: unknown): void {
    this.#worker = undefined;
    for (const starting of this.#starting.values()) starting.reject(error);
    this.#starting.clear();
    this.#running.clear();
  }
}

function send(worker: Worker, request: SpawnRequest): void {
  worker.postMessage(request);
}
