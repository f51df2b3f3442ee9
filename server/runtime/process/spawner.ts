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
  /**
   * Resolves with the exit code. After a kill it is 128 plus the signal's number, as in shells and Docker. undefined:
   * the code stays unknown, and the process may still run.
   */
  readonly exited: Promise<number | undefined>;
  readonly hasExited: boolean;
  kill(): void;
}

/**
 * Starts processes in a thread of its own. A spawn blocks its thread until the system has begun the program: 80 ms and
 * more while many processes want the processor. In the main thread, every call of every caller would wait for that.
 */
export class Spawner implements AsyncDisposable {
  #thread: SpawnThread | undefined;
  #isClosed = false;

  /** Resolves once the process runs. */
  async spawn(options: SpawnOptions): Promise<Child> {
    if (this.#isClosed) throw new Error("the runtime is closed");
    if (this.#thread === undefined || this.#thread.isLost) this.#thread = new SpawnThread();
    return this.#thread.spawn(options);
  }

  /** The processes continue. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    await this.#thread?.end();
  }
}

interface Started {
  spawned: PromiseWithResolvers<void>;
  exited: PromiseWithResolvers<number | undefined>;
  hasExited: boolean;
}

class SpawnThread {
  readonly #worker = new Worker(new URL("spawn-worker.ts", import.meta.url));
  readonly #children = new Map<number, Started>();
  #starting = 0;
  #lastId = 0;
  #isLost = false;

  constructor() {
    this.#worker.on("message", (answer: SpawnAnswer) => this.#onAnswer(answer));
    this.#worker.once("error", (error) => this.#onLost(error));
    this.#worker.once("exit", () => this.#onLost(new Error("the thread that starts processes has ended")));
  }

  get isLost(): boolean {
    return this.#isLost;
  }

  async spawn(options: SpawnOptions): Promise<Child> {
    const id = (this.#lastId += 1);
    const child = {
      spawned: Promise.withResolvers<void>(),
      exited: Promise.withResolvers<number | undefined>(),
      hasExited: false,
    };
    this.#children.set(id, child);
    this.#starting += 1;
    this.#worker.ref();
    try {
      this.#send({ kind: "spawn", id, ...options });
      await child.spawned.promise;
    } finally {
      this.#starting -= 1;
      // Running engines must not keep this process alive.
      if (this.#starting === 0) this.#worker.unref();
    }
    return {
      exited: child.exited.promise,
      get hasExited() {
        return child.hasExited;
      },
      kill: () => this.#send({ kind: "kill", id }),
    };
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }

  #send(request: SpawnRequest): void {
    this.#worker.postMessage(request);
  }

  #onAnswer(answer: SpawnAnswer): void {
    const child = this.#children.get(answer.id);
    if (child === undefined) return;
    if (answer.kind === "spawned") {
      child.spawned.resolve();
      return;
    }
    this.#children.delete(answer.id);
    if (answer.kind === "failed") {
      child.spawned.reject(new Error(answer.why));
      child.exited.resolve(undefined);
      return;
    }
    child.hasExited = true;
    child.exited.resolve(answer.code);
  }

  #onLost(error: unknown): void {
    this.#isLost = true;
    for (const { spawned, exited } of this.#children.values()) {
      spawned.reject(error);
      exited.resolve(undefined);
    }
    this.#children.clear();
  }
}
