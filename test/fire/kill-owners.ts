import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { createParser } from "eventsource-parser";
import { expect } from "vitest";
import { ADMIN_KEY, callProcedure, registerProduct, spawnService } from "../service/spawn-service.ts";
import { takePort, takePortRange } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";

const USERS = ["ada", "bob"];
/** So many events of each turn must arrive between two kills, so that each kill comes in mid-turn. */
const EVENTS_BETWEEN_KILLS = 3;

interface Caller {
  url: string;
  key: string;
}

/** What one plain reader of a turn gets, over all its connections. Unlike our client, it hides nothing. */
class PlainReader {
  readonly #caller: Caller;
  readonly #turnId: string;
  readonly seqs: number[] = [];
  readonly end: Promise<Record<string, unknown>>;
  text = "";
  connections = 0;

  constructor(caller: Caller, turnId: string) {
    this.#caller = caller;
    this.#turnId = turnId;
    this.end = this.#readToEnd();
  }

  async #readToEnd(): Promise<Record<string, unknown>> {
    let cursor = "0";
    for (;;) {
      let end: Record<string, unknown> | undefined;
      const parser = createParser({
        onEvent: ({ event, id, data }) => {
          if (event === "serialized-error") throw new Error(`refused: ${data}`);
          if (event !== undefined && event !== "message") return;
          const batch = JSON.parse(data) as {
            events: { seq: number; type: string; data: { text?: string } }[];
            gap?: unknown;
            end?: Record<string, unknown>;
          };
          if (batch.gap !== undefined) throw new Error(`a gap, then ${JSON.stringify(batch)}`);
          for (const one of batch.events) {
            this.seqs.push(one.seq);
            if (one.type === "text_delta") this.text += one.data.text ?? "";
          }
          cursor = id ?? cursor;
          end = batch.end;
        },
      });
      await this.#readConnection(cursor, (chunk) => parser.feed(chunk));
      if (end) return end;
      await sleep(50);
    }
  }

  /** Returns when the connection ends, in whatever way. */
  async #readConnection(cursor: string, onText: (text: string) => void): Promise<void> {
    const { url, key } = this.#caller;
    const query = `?input=${encodeURIComponent(JSON.stringify({ turnId: this.#turnId }))}`;
    const headers = { authorization: `Bearer ${key}`, "last-event-id": cursor };
    const response = await fetch(`${url}/trpc/turns.events${query}`, { headers }).catch(() => undefined);
    if (!response?.body) return;
    this.connections += 1;
    const decoder = new TextDecoder();
    const chunks = response.body.values();
    for (;;) {
      const chunk = await chunks.next().catch(() => undefined);
      if (chunk === undefined || chunk.done === true) return;
      onText(decoder.decode(chunk.value, { stream: true }));
    }
  }
}

interface WatchedTurn {
  turnId: string;
  taskId: string;
  userId: string;
  readers: PlainReader[];
}

/**
 * Kills the owner of several turns with SIGKILL, again and again, each time in the middle of all of them. Then checks that
 * every turn completed, that each reader got each event once and in order, and that each engine got each message once.
 */
export async function killOwners({ kills, words }: { kills: number; words: number }): Promise<{
  /** How many turns were in progress at each kill, in all. */
  cutTurns: number;
  turns: number;
}> {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const ports = takePortRange(4);
  const port = await takePort();
  const environment = {
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_ENGINE_BACKEND: "process",
    ORCH_PORT: `${port}`,
    ORCH_PORT_MIN: `${ports.min}`,
    ORCH_PORT_MAX: `${ports.max}`,
    ORCH_STOP_GRACE_S: "1",
    NODE_COMPILE_CACHE: `${home.path}/compiled`,
  };
  let service = spawnService(environment);
  await using stack = new AsyncDisposableStack();
  stack.defer(() => service[Symbol.asyncDispose]());
  const url = await service.listening;
  const caller = { url, key: await registerProduct(url) };
  for (const userId of USERS) {
    expect((await callProcedure(caller, "engines.provision", { userId })).status).toBe(200);
  }

  const turns: WatchedTurn[] = [];
  const live = new Map<string, { turn: WatchedTurn; seenAtStart: number }>();
  const done = new AbortController();
  let restarted = Promise.resolve();
  const runTurns = async (userId: string) => {
    while (!done.signal.aborted) {
      // A turn whose start is cut is another matter: its outcome may be unknown.
      await restarted;
      const turn = await startTurn(caller, { userId, words });
      turns.push(turn);
      live.set(turn.turnId, { turn, seenAtStart: 0 });
      await Promise.all(turn.readers.map(async ({ end }) => end));
      live.delete(turn.turnId);
    }
  };
  const workers = Promise.all(USERS.flatMap((userId) => [runTurns(userId), runTurns(userId)]));
  const failed = workers.then(() => Promise.reject(new Error("the turns ended too early")));
  failed.catch(() => {
    // Awaited in the races below.
  });
  const isMidTurn = () =>
    live.size === 2 * USERS.length &&
    [...live.values()].every(({ turn, seenAtStart }) =>
      turn.readers.every(({ seqs }) => seqs.length >= seenAtStart + EVENTS_BETWEEN_KILLS),
    );
  let cutTurns = 0;
  /** What the services said about turns that could not go on. */
  const complaints: string[] = [];
  for (let kill = 1; kill <= kills; kill += 1) {
    while (!isMidTurn()) {
      await Promise.race([sleep(5), failed]).catch((cause: unknown) => {
        throw new Error(
          `after ${kill - 1} kills: ${[...complaints, ...listComplaints(service.output())].join("\n")}`,
          { cause },
        );
      });
    }
    const up = Promise.withResolvers<void>();
    restarted = up.promise;
    cutTurns += live.size;
    await service.signal("SIGKILL");
    complaints.push(...listComplaints(service.output()));
    for (const one of live.values()) {
      one.seenAtStart = Math.max(...one.turn.readers.map(({ seqs }) => seqs.length));
    }
    service = spawnService(environment);
    await service.listening;
    up.resolve();
  }
  done.abort();
  await workers;
  await checkTurns(caller, { turns, words });
  for (const userId of USERS) {
    // No hold is left.
    const destroyed = await callProcedure(caller, "engines.destroy", { userId, whenBusy: "reject" });
    expect(destroyed.status).toBe(200);
  }
  expect(await service.signal("SIGTERM")).toBe(0);
  return { cutTurns, turns: turns.length };
}

function listComplaints(output: string): string[] {
  return output.split("\n").filter((line) => /"level":(?:"warn"|"error"|[45]0)/.test(line));
}

async function startTurn(
  caller: Caller,
  { userId, words }: { userId: string; words: number },
): Promise<WatchedTurn> {
  const turn = { turnId: randomUUID(), taskId: randomUUID(), userId };
  const request = { message: "hello", taskId: turn.taskId, reference: { words, delayMs: 10 } };
  const started = await callProcedure(caller, "turns.start", { turnId: turn.turnId, userId, request });
  expect(started.data, JSON.stringify(started)).toMatchObject({ created: true });
  return { ...turn, readers: [0, 1].map(() => new PlainReader(caller, turn.turnId)) };
}

async function checkTurns(
  caller: Caller,
  { turns, words }: { turns: WatchedTurn[]; words: number },
): Promise<void> {
  for (const { turnId, taskId, userId, readers } of turns) {
    const { data: turn } = await callProcedure(caller, "turns.get", { turnId });
    expect(turn).toMatchObject({ status: "completed", end: { reason: null } });
    const params = { task_id: taskId };
    const { data } = await callProcedure(caller, "rpc.call", {
      userId,
      method: "memory.get_thread",
      params,
    });
    const { messages } = (data as { result: { messages: { role: string; text: string }[] } }).result;
    expect(messages.map(({ role }) => role)).toEqual(["user", "assistant"]);
    for (const reader of readers) {
      const count = Number(turn["lastSeq"]) - 1;
      expect(reader.seqs).toEqual(Array.from({ length: count }, (_, index) => index + 1));
      expect(reader.text).toBe(messages[1]?.text);
      expect(count).toBeGreaterThan(words);
    }
  }
}
