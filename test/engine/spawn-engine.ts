import { spawn, type ChildProcess } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createParser } from "eventsource-parser";

const ENGINE_MAIN = join(import.meta.dirname, "../../engine/main.ts");

export const ENGINE_KEY = "ehe_test";

export interface Event {
  readonly type: string;
  /** The `id:` of the event; undefined if it has none. */
  readonly id?: string | undefined;
  readonly data: Record<string, unknown>;
}

export interface Reply {
  readonly status: number;
  readonly body: unknown;
}

/** A temporary folder that stands in for the engine's volume and catalog. */
export interface EngineHome extends AsyncDisposable {
  readonly brainPath: string;
  readonly catalogDir: string;
}

export async function openHome(): Promise<EngineHome> {
  const folder = await mkdtemp(join(tmpdir(), "engine-test-"));
  const catalogDir = join(folder, "catalog");
  await mkdir(catalogDir);
  return {
    brainPath: join(folder, "brain.sqlite"),
    catalogDir,
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}

export function toEngineEnv(home: EngineHome): Record<string, string> {
  return {
    ENGINE_KEY_HASH: createHash("sha256").update(ENGINE_KEY).digest("hex"),
    SQLITE_DB_PATH: home.brainPath,
    CATALOG_DIR: home.catalogDir,
    ENGINE_HOST: "127.0.0.1",
    ENGINE_PORT: "0",
  };
}

export interface Output {
  stdout: string;
  stderr: string;
}

export interface SpawnedMain {
  readonly child: ChildProcess;
  readonly output: Output;
  /** Resolves with the exit code or the signal's name, after all output has been read. */
  readonly ended: Promise<number | string | null>;
}

export function spawnMain(env: Record<string, string>): SpawnedMain {
  const child = spawn(process.execPath, [ENGINE_MAIN], { env, stdio: ["ignore", "pipe", "pipe"] });
  const output: Output = { stdout: "", stderr: "" };
  child.stdout?.on("data", (chunk: Buffer) => (output.stdout += chunk.toString()));
  child.stderr?.on("data", (chunk: Buffer) => (output.stderr += chunk.toString()));
  const ended = once(child, "close").then(() => child.exitCode ?? child.signalCode);
  return { child, output, ended };
}

export interface RunningEngine extends AsyncDisposable, EngineCalls {
  readonly output: Output;
  signal(signal: NodeJS.Signals): void;
  exited(): Promise<number | string | null>;
}

/** Starts a real engine process. Disposing kills it. */
export async function spawnEngine(home: EngineHome): Promise<RunningEngine> {
  const { child, output, ended } = spawnMain(toEngineEnv(home));
  const port = await new Promise<number>((resolve, reject) => {
    void ended.then(() => reject(new Error(`the engine exited: ${output.stderr}`)));
    child.stdout?.on("data", () => {
      const line = output.stdout.split("\n").find((text) => text.includes('"listening"'));
      if (line) resolve((JSON.parse(line) as { port: number }).port);
    });
  });
  return {
    ...callEngine(port),
    output,
    signal: (signal) => void child.kill(signal),
    exited: () => ended,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await ended;
    },
  };
}

export interface EngineCalls {
  readonly url: string;
  get(path: string): Promise<Reply>;
  post(path: string, body: unknown): Promise<Reply>;
  rpc(method: string, params?: unknown): Promise<Reply>;
  /** Starts a turn and yields its events as they come. */
  open(body: unknown, signal?: AbortSignal): Promise<AsyncGenerator<Event, void>>;
  /** Runs a turn to its end and returns all its events. */
  execute(body: unknown): Promise<Event[]>;
  replay(after: number): Promise<Event[]>;
  /** Asks for the events of a turn after an event, and for the live rest. */
  openReplay(taskId: string, lastEventId?: string, signal?: AbortSignal): Promise<Response>;
}

export function callEngine(port: number): EngineCalls {
  const url = `http://127.0.0.1:${port}`;
  const headers = { "x-engine-key": ENGINE_KEY, "content-type": "application/json" };
  const get = async (path: string): Promise<Reply> => toReply(await fetch(url + path, { headers }));
  const post = async (path: string, body: unknown): Promise<Reply> =>
    toReply(await fetch(url + path, { method: "POST", headers, body: JSON.stringify(body) }));
  const open = async (body: unknown, signal?: AbortSignal): Promise<AsyncGenerator<Event, void>> => {
    const init = { method: "POST", headers, body: JSON.stringify(body) };
    return readEvents(await fetch(`${url}/execute`, signal ? { ...init, signal } : init));
  };
  return {
    url,
    get,
    post,
    rpc: (method, params) => post("/rpc", { method, params }),
    open,
    execute: async (body) => await readAll(await open(body)),
    replay: async (after) =>
      await readAll(readEvents(await fetch(`${url}/execute/replay?after=${after}`, { headers }))),
    openReplay: async (taskId, lastEventId, signal) =>
      fetch(`${url}/execute/replay?task_id=${encodeURIComponent(taskId)}`, {
        headers: { ...headers, ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }) },
        ...(signal ? { signal } : {}),
      }),
  };
}

async function toReply(response: Response): Promise<Reply> {
  return { status: response.status, body: await response.json() };
}

export async function* readEvents(response: Response): AsyncGenerator<Event, void> {
  if (response.status !== 200 || !response.body) {
    throw new Error(`the engine answered ${response.status}: ${await response.text()}`);
  }
  if (response.headers.get("content-type") !== "text/event-stream") throw new Error("not an event stream");
  let ready: Event[] = [];
  const parser = createParser({
    onEvent: ({ event, id, data }) =>
      ready.push({ type: event ?? "message", data: JSON.parse(data), ...(id === undefined ? {} : { id }) }),
  });
  const decoder = new TextDecoder();
  for await (const chunk of response.body) {
    parser.feed(decoder.decode(chunk as Uint8Array, { stream: true }));
    yield* ready;
    ready = [];
  }
}

export async function readAll(events: AsyncGenerator<Event, void>): Promise<Event[]> {
  const all: Event[] = [];
  for await (const event of events) all.push(event);
  return all;
}

/** Reads up to the first event of a type, and returns that event too. */
export async function readUntil(events: AsyncGenerator<Event, void>, type: string): Promise<Event[]> {
  const seen: Event[] = [];
  for (;;) {
    const { value, done } = await events.next();
    if (done) throw new Error(`the turn ended without ${type}`);
    seen.push(value);
    if (value.type === type) return seen;
  }
}

/** Drops the heartbeats, which come when a turn has waited long. */
export function withoutHeartbeats(events: readonly Event[]): Event[] {
  return events.filter((event) => event.type !== "heartbeat");
}

export function toText(events: readonly Event[]): string {
  return events
    .filter((event) => event.type === "text_delta")
    .map((event) => event.data["text"])
    .join("");
}
