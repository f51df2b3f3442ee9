import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase, type Database } from "../../../db/client.ts";
import { beginTurn, type NewTurn } from "../../../db/turns.ts";
import { cancelTurn } from "../../../server/turns/cancel-turn.ts";
import { startTurn, type StartTurnInput } from "../../../server/turns/start/start-turn.ts";
import { completed, delta, streamOf } from "../engine-double.ts";
import { openTurnWorld, readAll, type TurnWorld, type WorldContext } from "../turn-world.ts";

const DEFAULT = 5;

let world: TurnWorld;
beforeAll(async () => {
  world = await openTurnWorld({ config: { maxLiveTurns: DEFAULT } });
});
afterAll(async () => world[Symbol.asyncDispose]());

/** A product with one engine and this policy. */
async function addProduct(policy: Record<string, unknown> = {}): Promise<string> {
  const productId = await world.addProduct();
  await setPolicy(productId, policy);
  await world.addEngine("ann", productId);
  return productId;
}

async function setPolicy(productId: string, policy: Record<string, unknown>): Promise<void> {
  const { raw } = world.database;
  await raw`update products set policy = ${JSON.stringify(policy)}::text::jsonb where id = ${productId}`;
}

const inputOf = (productId: string): StartTurnInput => ({ ...world.input(), productId });

/** Turns stay live until they are cancelled. */
function keepLive(): void {
  world.engine.onCall = (call) => {
    call.open();
    call.response.write(delta("a"));
  };
}

async function countLive(productId: string): Promise<number> {
  const [row] = await world.database.raw<{ n: number }[]>`
    select count(*)::int as n from turns where product_id = ${productId} and status in ('starting', 'streaming')`;
  return row?.n ?? -1;
}

const reasonOf = async (ctx: WorldContext, input: StartTurnInput) =>
  startTurn(ctx, input).then(
    () => "started",
    (error: unknown) => (error as { reason?: string }).reason ?? String(error),
  );
const countOf = (outcomes: readonly string[], outcome: string) =>
  outcomes.filter((each) => each === outcome).length;

test.each([
  ["the policy's", { maxLiveTurns: 3 }, 3],
  ["the installation's, without one in the policy", {}, DEFAULT],
])(
  "starts at two replicas at once make exactly as many live turns as the limit allows: %s",
  async (_whose, policy, max) => {
    keepLive();
    const productId = await addProduct(policy);
    const other = world.openProcess();
    const outcomes = await Promise.all(
      Array.from({ length: 24 }, async (_, index) =>
        reasonOf(index % 2 === 0 ? world.ctx : other.ctx, inputOf(productId)),
      ),
    );
    expect(countOf(outcomes, "started")).toBe(max);
    expect(countOf(outcomes, "STREAM_LIMIT")).toBe(24 - max);
    expect(await countLive(productId)).toBe(max);
  },
);

test("the refusal says the limit and when to come back, and the engine never has the turn", async () => {
  keepLive();
  const productId = await addProduct({ maxLiveTurns: 1 });
  await startTurn(world.ctx, inputOf(productId));
  const late = inputOf(productId);
  const refused = startTurn(world.ctx, late);
  await expect(refused).rejects.toThrow(/may have 1 live turns at once \(maxLiveTurns of its policy/);
  await expect(refused).rejects.toMatchObject({ reason: "STREAM_LIMIT", retryAfterMs: expect.any(Number) });
  expect(world.engine.calls.filter((call) => call.body["task_id"] === late.request.taskId)).toEqual([]);
});

test("a turn that ends, is cancelled or was refused by its engine makes room", async () => {
  const productId = await addProduct({ maxLiveTurns: 1 });
  world.engine.onCall = streamOf(delta("a"), completed());
  const ended = inputOf(productId);
  await startTurn(world.ctx, ended);
  await readAll(world.ctx, ended);
  world.engine.onCall = (call) => {
    call.response.writeHead(400).end();
  };
  expect(await reasonOf(world.ctx, inputOf(productId))).toBe("ENGINE_ERROR");
  keepLive();
  const cancelled = inputOf(productId);
  expect(await reasonOf(world.ctx, cancelled)).toBe("started");
  expect(await reasonOf(world.ctx, inputOf(productId))).toBe("STREAM_LIMIT");
  await cancelTurn(world.ctx, cancelled);
  expect(await reasonOf(world.ctx, inputOf(productId))).toBe("started");
});

test("at the limit, a start of a live turn joins it", async () => {
  keepLive();
  const productId = await addProduct({ maxLiveTurns: 1 });
  const input = inputOf(productId);
  await startTurn(world.ctx, input);
  expect(await startTurn(world.openProcess().ctx, input)).toMatchObject({ created: false });
});

const toCaller = (id: string) => ({
  ...world.ctx,
  actor: { kind: "platform_key" as const, id, name: "test" },
});

test("a limit of a key counts the turns that this key has started", async () => {
  keepLive();
  const productId = await addProduct({ maxLiveTurns: 4, maxLiveTurnsPerKey: 2 });
  const one = toCaller("key 1");
  const two = toCaller("key 2");
  expect(await reasonOf(one, inputOf(productId))).toBe("started");
  expect(await reasonOf(one, inputOf(productId))).toBe("started");
  await expect(startTurn(one, inputOf(productId))).rejects.toThrow(/this key may have 2 live turns/);
  expect(await reasonOf(two, inputOf(productId))).toBe("started");
  expect(await reasonOf(two, inputOf(productId))).toBe("started");
  await expect(startTurn(toCaller("key 3"), inputOf(productId))).rejects.toThrow(
    /the product may have 4 live turns/,
  );
});

test("a new limit counts at the next start of every replica, and a lower one ends no turn", async () => {
  keepLive();
  const productId = await addProduct({ maxLiveTurns: 3 });
  const other = world.openProcess();
  for (let n = 0; n < 3; n += 1) expect(await reasonOf(world.ctx, inputOf(productId))).toBe("started");
  await setPolicy(productId, { maxLiveTurns: 1 });
  for (const { ctx } of [world, other]) expect(await reasonOf(ctx, inputOf(productId))).toBe("STREAM_LIMIT");
  expect(await countLive(productId)).toBe(3);
  await setPolicy(productId, { maxLiveTurns: 4 });
  expect(await reasonOf(other.ctx, inputOf(productId))).toBe("started");
  expect(await reasonOf(world.ctx, inputOf(productId))).toBe("STREAM_LIMIT");
});

test("turns that wait for their engine are as many as may be live, and have no row", async () => {
  const productId = await addProduct({ maxLiveTurns: 2 });
  const { raw } = world.database;
  await raw`update engines set status = 'starting' where product_id = ${productId}`;
  const waiting = Array.from({ length: 2 }, () => {
    const input = { ...inputOf(productId), timeoutMs: 60_000 };
    const outcome = startTurn(world.ctx, input).catch((error: unknown) => error);
    return { input, outcome };
  });
  await expect
    .poll(async () => startTurn(world.ctx, { ...inputOf(productId), timeoutMs: 1 }).catch(String))
    .toMatch(/2 turns of the product wait for their engines already/);
  expect(await countLive(productId)).toBe(0);
  for (const { input } of waiting) await cancelTurn(world.ctx, input);
  await Promise.all(waiting.map(async ({ outcome }) => outcome));
  await expect
    .poll(async () => startTurn(world.ctx, { ...inputOf(productId), timeoutMs: 1 }).catch(String))
    .toMatch(/did not become usable within 1 ms/);
});

test("a policy limits the bytes that a product logs in an hour, and another product's log does not count", async () => {
  const productId = await addProduct({ turnLogBytesPerHour: 20_000 });
  world.engine.onCall = (call) => {
    call.open();
    call.response.write(delta("x".repeat(30_000)));
  };
  const input = inputOf(productId);
  await startTurn(world.ctx, input);
  const read = await readAll(world.ctx, input);
  expect(read.end).toMatchObject({ status: "failed", reason: "LOG_LIMIT" });
  expect(read.end?.message).toContain("20000 bytes");
  const refused = startTurn(world.ctx, inputOf(productId));
  await expect(refused).rejects.toMatchObject({ reason: "RATE_LIMITED" });
  await expect(refused).rejects.toThrow(/have reached 20000 bytes.*turnLogBytesPerHour/);
  expect(await reasonOf(world.ctx, inputOf(await addProduct()))).toBe("started");
  await setPolicy(productId, { turnLogBytesPerHour: 1_000_000 });
  expect(await reasonOf(world.ctx, inputOf(productId))).toBe("started");
});

/** The connections that a test server of Postgres has at the most. */
async function readSessions(): Promise<number> {
  const [row] = await world.database.raw<
    { n: number }[]
  >`select current_setting('max_connections')::int as n`;
  return row?.n ?? 0;
}

function toRow(productId: string): Omit<NewTurn, "engineId" | "generation"> {
  return {
    productId,
    turnId: randomUUID(),
    userId: "ann",
    taskId: randomUUID(),
    fingerprint: "f",
    startedBy: "key 1",
    ownerReplica: randomUUID(),
    fencingToken: 1,
    reservedSeq: 1,
  };
}

const options = (liveTurns: number) => ({
  expectGeneration: undefined,
  defaults: { logBytesPerHour: 2 ** 31, liveTurns },
});

async function addRows({ raw }: Database, productId: string, count: number): Promise<void> {
  await raw`insert into turns (product_id, id, user_id, engine_id, generation, task_id, fingerprint, status,
      owner_replica, fencing_token, reserved_seq, started_at)
    select ${productId}, gen_random_uuid(), 'ann', gen_random_uuid(), 1, 'task ' || n, 'f', 'streaming',
      gen_random_uuid(), 1, 1, now()
    from generate_series(1, ${count}::int) as n`;
}

test("from below, at and beyond a large limit, starts on many connections never exceed it", async () => {
  const productId = await addProduct();
  const sessions = await readSessions();
  // Here the starts begin side by side. On the way they come so close to the limit that they begin one at a time.
  const max = 2 * sessions;
  await addRows(world.database, productId, max - sessions - 8);
  const pools = Array.from({ length: 4 }, () =>
    openDatabase({ url: world.databaseUrl, poolSize: 5, applicationName: "limits" }),
  );
  try {
    const outcomes = await Promise.all(
      Array.from({ length: sessions + 30 }, async (_, index) => {
        const { raw } = pools[index % pools.length] ?? world.database;
        return beginTurn(raw, toRow(productId), options(max));
      }),
    );
    expect(outcomes.filter(({ startedAt }) => startedAt !== undefined)).toHaveLength(sessions + 8);
    expect(outcomes.filter(({ exceeded }) => exceeded?.limit === "liveTurns")).toHaveLength(22);
    expect(await countLive(productId)).toBe(max);
  } finally {
    await Promise.all(pools.map(async (pool) => pool.close()));
  }
});

test("far from the limit a start does not wait for another one's commit, and close to it a start does", async () => {
  const productId = await addProduct();
  const max = 2 * (await readSessions());
  const pool = openDatabase({ url: world.databaseUrl, poolSize: 3, applicationName: "limits" });
  const hold = async <T>(work: () => Promise<T>): Promise<T> => {
    const connection = await pool.raw.reserve();
    try {
      await connection`begin`;
      await beginTurn(connection, toRow(productId), options(max));
      const done = await work();
      await connection`commit`;
      return done;
    } finally {
      connection.release();
    }
  };
  try {
    await hold(async () => {
      expect((await beginTurn(pool.raw, toRow(productId), options(max))).startedAt).toBeDefined();
    });
    await addRows(world.database, productId, max - 3);
    const last = await hold(async () => {
      const start = beginTurn(pool.raw, toRow(productId), options(max));
      const { raw } = world.database;
      await expect
        .poll(async () => raw`select from pg_locks where locktype = 'advisory' and not granted`)
        .toHaveLength(1);
      // In an object, because the start ends only after the commit.
      return { start };
    });
    // The held start was the last that fits.
    expect(await last.start).toMatchObject({ startedAt: undefined, exceeded: { limit: "liveTurns" } });
    expect(await countLive(productId)).toBe(max);
  } finally {
    await pool.close();
  }
});
