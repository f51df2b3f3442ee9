import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const ENTRY = fileURLToPath(new URL("../server/main.ts", import.meta.url));
const STOP_TIMEOUT_MS = 30_000;
const CLOSE_TIMEOUT_MS = 1_000;
const KEPT_LINES = 200;
const KEPT_PROBLEMS = 3;

/** The real service in its own process, exactly as `npm start` runs it. */
export class DemoService {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #closed: Promise<unknown>;
  readonly #listening: Promise<string>;
  readonly #lines: string[] = [];
  #instanceId: string | undefined;

  constructor(env: NodeJS.ProcessEnv) {
    // Its own process group: Ctrl-C in a terminal goes to a whole group and must reach only the demo.
    this.#child = spawn(process.execPath, [ENTRY], {
      env,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#exited = once(this.#child, "exit").catch((error: unknown) => error);
    this.#closed = once(this.#child, "close").catch((error: unknown) => error);
    this.#listening = this.#readLog();
    // The start may fail before anything awaits this promise.
    this.#listening.catch(() => undefined);
  }

  /** Resolves with the service's URL. Rejects with the end of its log if the service exits first. */
  get listening(): Promise<string> {
    return this.#listening;
  }

  /** Resolves when the service has exited, for any reason. */
  get exited(): Promise<unknown> {
    return this.#exited;
  }

  /** The instance id in the labels of its containers; undefined until the service has logged it. */
  get instanceId(): string | undefined {
    return this.#instanceId;
  }

  /** The last warnings and errors of its log. */
  get problems(): readonly string[] {
    return this.#lines
      .filter((line) => /"level":"(?:warn|error)"|^\S*Error\b/.test(line))
      .slice(-KEPT_PROBLEMS);
  }

  /** Stops the service and waits for its exit. Returns true when it exited with code 0. */
  async stop(): Promise<boolean> {
    const { pid } = this.#child;
    if (pid === undefined) return true;
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => killGroup(pid), STOP_TIMEOUT_MS);
    await this.#exited;
    clearTimeout(timer);
    // Wait for the last lines in the pipe, but not for ever: a child that outlives the service keeps the pipe open.
    await Promise.race([this.#closed, sleep(CLOSE_TIMEOUT_MS, undefined, { ref: false })]);
    // End what the service started in its group, such as an initdb.
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
      reject(new Error(`the service exited before it listened:\n${this.#lines.slice(-10).join("\n")}`));
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
    // A line that is not JSON, such as a stack trace, is not a log entry.
    return {};
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // The group has no process any more.
  }
}
