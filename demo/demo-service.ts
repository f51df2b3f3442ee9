import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const ENTRY = fileURLToPath(new URL("../server/main.ts", import.meta.url));
const STOP_PATIENCE_MS = 30_000;
const CLOSE_PATIENCE_MS = 1_000;
const KEPT_LINES = 200;
const KEPT_COMPLAINTS = 3;

/** The real service, in a process of its own: exactly what `npm start` runs. */
export class DemoService {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #closed: Promise<unknown>;
  readonly #listening: Promise<string>;
  readonly #lines: string[] = [];
  #instanceId: string | undefined;

  constructor(env: NodeJS.ProcessEnv) {
    // A process group of its own: Ctrl-C in a terminal reaches the whole group, and shall reach the demo alone.
    this.#child = spawn(process.execPath, [ENTRY], {
      env,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#exited = once(this.#child, "exit").catch((error: unknown) => error);
    this.#closed = once(this.#child, "close").catch((error: unknown) => error);
    this.#listening = this.#readLog();
    // Nobody may be waiting when it fails to start.
    this.#listening.catch(() => undefined);
  }

  /** Resolves with its address; rejects with the end of its log when it exits instead. */
  get listening(): Promise<string> {
    return this.#listening;
  }

  /** Resolves when it has exited, for whatever reason. */
  get exited(): Promise<unknown> {
    return this.#exited;
  }

  /** Whose containers these are; undefined as long as there cannot be any. */
  get instanceId(): string | undefined {
    return this.#instanceId;
  }

  /** What it complained of last, as it stands in its log. */
  get complaints(): readonly string[] {
    return this.#lines
      .filter((line) => /"level":"(?:warn|error)"|^\S*Error\b/.test(line))
      .slice(-KEPT_COMPLAINTS);
  }

  /** Asks it to stop, and waits until it has. True: it closed in order. */
  async stop(): Promise<boolean> {
    const { pid } = this.#child;
    if (pid === undefined) return true;
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => killGroup(pid), STOP_PATIENCE_MS);
    await this.#exited;
    clearTimeout(timer);
    // Its last lines may still be in the pipe; somebody who outlives it may hold the other end.
    await Promise.race([this.#closed, sleep(CLOSE_PATIENCE_MS, undefined, { ref: false })]);
    // What it had begun in its group, such as an initdb, does not outlive it.
    killGroup(pid);
    return this.#child.exitCode === 0;
  }

  #readLog(): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on("line", (line) => {
        this.#lines.push(line);
        if (this.#lines.length > KEPT_LINES) this.#lines.shift();
        const entry = parseEntry(line);
        this.#instanceId ??= entry.instanceId;
        if (entry.msg === "listening" && entry.url !== undefined) resolve(entry.url);
      });
    }
    this.#child.once("exit", () => {
      reject(new Error(`the service ended before it listened:\n${this.#lines.slice(-10).join("\n")}`));
    });
    this.#child.once("error", reject);
    return promise;
  }
}

interface LogEntry {
  msg?: string;
  url?: string;
  instanceId?: string;
}

function parseEntry(line: string): LogEntry {
  try {
    return JSON.parse(line) as LogEntry;
  } catch {
    // Not everything that a process writes is a log line.
    return {};
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // There is nobody left in it.
  }
}
