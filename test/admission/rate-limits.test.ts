import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDatabase } from "../../db/client.ts";
import { countCalls, removeOldRateWindows } from "../../db/rate-windows.ts";
import {
  JITTER_MS,
  RateLimits,
  toCounted,
  WINDOW_MS,
  type Rate,
} from "../../server/admission/rate-limits.ts";
import { DomainError } from "../../server/errors.ts";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import type { ProductPolicy } from "../../server/products/product-policy.ts";
import { updateProductPolicy } from "../../server/products/update-product-policy.ts";
import {
  addEngine,
  addProduct,
  openPlatformContext,
  type PlatformContext,
} from "../support/platform-context.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";
import { runAsAdmin } from "../support/test-database.ts";

let ctx: PlatformContext;
beforeAll(async () => {
  ctx = await openPlatformContext();
});
afterAll(async () => ctx?.[Symbol.asyncDispose]());

/** A replica's own pool, with rate limits of its own. */
function openReplica(stack: AsyncDisposableStack): RateLimits {
  return new RateLimits(stack.use(openDatabase({ url: ctx.url, poolSize: 10, applicationName: "replica" })));
}

async function addLimited(policy: ProductPolicy) {
  const { product } = await addProduct(ctx, policy);
  const limits = { requests: policy.rateLimitRpm, turns: policy.turnLimitRpm };
  return { productId: product.productId, limits, startsTurn: false };
}

const setPolicy = async (productId: string, policy: ProductPolicy) =>
  updateProductPolicy(ctx, { productId, policy, idempotency: NO_RECORD });

/** "ok", or the reason of the refusal. */
async function outcomeOf(counting: Promise<unknown>): Promise<string> {
  return counting.then(
    () => "ok",
    (error: DomainError) => error.reason,
  );
}

function tally(outcomes: readonly string[]): Record<string, number> {
  return Object.fromEntries(
    [...new Set(outcomes)].map((each) => [each, outcomes.filter((other) => other === each).length]),
  );
}

test("with a limit of 60, exactly 60 of 400 calls at once at two replicas are let through", async () => {
  await using stack = new AsyncDisposableStack();
  const replicas = [openReplica(stack), openReplica(stack)];
  const call = await addLimited({ rateLimitRpm: 60 });
  const counting = Array.from({ length: 400 }, async (_, index) =>
    outcomeOf((replicas[index % 2] ?? new RateLimits(ctx)).count(call)),
  );
  expect(tally(await Promise.all(counting))).toEqual({ ok: 60, RATE_LIMITED: 340 });
  const [window] = await ctx.raw`select used, "limit" from rate_windows where product_id = ${call.productId}`;
  expect(window).toMatchObject({ used: 60, limit: 60 });
});

test("a full window is refused without a statement, until another limit is known", async () => {
  await using stack = new AsyncDisposableStack();
  const database = openDatabase({ url: ctx.url, poolSize: 2, applicationName: "replica" });
  stack.use(database);
  const limits = new RateLimits(database);
  const call = await addLimited({ rateLimitRpm: 1 });
  await limits.count(call);
  await database.close();
  expect(await outcomeOf(limits.count(call))).toBe("RATE_LIMITED");
  // Only the database knows whether there is room under another limit.
  await expect(limits.count({ ...call, limits: { requests: 2, turns: undefined } })).rejects.toMatchObject({
    cause: { code: "CONNECTION_ENDED" },
  });
});

test("a call that cannot be counted is not let through", async () => {
  await using stack = new AsyncDisposableStack();
  const nobody = { url: "postgres://nobody@127.0.0.1:1/nothing", poolSize: 2, applicationName: "replica" };
  const limits = new RateLimits(stack.use(openDatabase(nobody)));
  const call = await addLimited({ rateLimitRpm: 1_000 });
  await expect(limits.count(call)).rejects.toMatchObject({ cause: { code: "ECONNREFUSED" } });
});

test("a changed limit is in force at the next call of every replica", async () => {
  await using stack = new AsyncDisposableStack();
  const [one, two] = [openReplica(stack), openReplica(stack)];
  const call = await addLimited({ rateLimitRpm: 100 });
  const rates: Rate[] = [];
  const count = async (limits: RateLimits) =>
    outcomeOf(limits.count({ ...call, onRates: (found) => rates.push(...found) }));
  expect([await count(one), await count(two)]).toEqual(["ok", "ok"]);
  await setPolicy(call.productId, { rateLimitRpm: 3 });
  expect([await count(two), await count(one)]).toEqual(["ok", "RATE_LIMITED"]);
  expect(rates.map(({ limit, remaining }) => [limit, remaining])).toEqual([
    [100, 99],
    [100, 98],
    [3, 0],
    [3, 0],
  ]);
  // Both replicas know that the window is full under the old limit, and learn the new one with the state of the key.
  await setPolicy(call.productId, { rateLimitRpm: 4 });
  const raised = { ...call, limits: { requests: 4, turns: undefined } };
  expect([await outcomeOf(one.count(raised)), await outcomeOf(two.count(raised))]).toEqual([
    "ok",
    "RATE_LIMITED",
  ]);
  // Without a limit nothing is counted, also while the state of the key still has one.
  await setPolicy(call.productId, {});
  expect(await outcomeOf(two.count({ ...call, limits: { requests: 100, turns: undefined } }))).toBe("ok");
});

test("retryAfterMs lasts to the end of the window, and up to the jitter longer", async () => {
  const limits = new RateLimits(ctx);
  const call = await addLimited({ rateLimitRpm: 1 });
  await limits.count(call);
  const waits: number[] = [];
  let leftMs = 0;
  for (let tries = 0; tries < 200; tries += 1) {
    const counting = limits.count({ ...call, onRates: ([rate]) => (leftMs = rate?.leftMs ?? Number.NaN) });
    const error: unknown = await counting.catch((refusal: unknown) => refusal);
    if (!(error instanceof DomainError)) throw new Error("a call beyond the limit was let through");
    const jitterMs = (error.retryAfterMs ?? Number.NaN) - leftMs;
    expect(jitterMs).toBeGreaterThanOrEqual(0);
    expect(jitterMs).toBeLessThanOrEqual(JITTER_MS + 1);
    waits.push(jitterMs);
  }
  // Of 200 evenly spread waits, a tenth of the range without one is out of the question.
  const tenths = new Set(waits.map((ms) => Math.floor((ms / JITTER_MS) * 10)));
  for (let tenth = 0; tenth < 10; tenth += 1) expect(tenths).toContain(tenth);
});

/** Counts so many calls, and returns the window of the limit for calls. */
async function countRequests(productId: string, calls: number) {
  const { windows } = await countCalls(
    ctx.db,
    productId,
    Array.from({ length: calls }, () => ({ startsTurn: false })),
  );
  return windows.requests;
}

const shift = async (interval: string) => shiftDatabaseClock(ctx.url, interval);
/** The database's clock stands still, so that a test can name the very border. */
const standAt = async (instant: string) =>
  runAsAdmin(
    ctx.adminUrl,
    `create or replace function orch_now() returns timestamptz language sql stable
     as $$ select timestamptz '${instant}' $$`,
  );

describe("the window, by the database's clock", () => {
  test("begins with the first call, and lasts exactly a minute", async () => {
    try {
      const { productId } = await addLimited({ rateLimitRpm: 5 });
      await standAt("2030-01-01 10:00:07.5Z");
      expect(await countRequests(productId, 3)).toEqual({ limit: 5, taken: 3, used: 3, leftMs: WINDOW_MS });
      await standAt("2030-01-01 10:01:07.499999Z");
      expect(await countRequests(productId, 4)).toMatchObject({ taken: 2, used: 5 });
      expect(await countRequests(productId, 1)).toMatchObject({ taken: 0, used: 5 });
      await standAt("2030-01-01 10:01:07.5Z");
      expect(await countRequests(productId, 9)).toEqual({ limit: 5, taken: 5, used: 5, leftMs: WINDOW_MS });
    } finally {
      await shift("0");
    }
  });

  test("is the same for a statement that waited while another one began it", async () => {
    try {
      const { productId } = await addLimited({ rateLimitRpm: 5 });
      await standAt("2030-01-01 10:00:00.2Z");
      await countRequests(productId, 4);
      await standAt("2030-01-01 10:00:00Z");
      expect(await countRequests(productId, 4)).toMatchObject({ taken: 1, used: 5 });
    } finally {
      await shift("0");
    }
  });

  test("begins anew after the clock was set back by more than a window", async () => {
    try {
      const { productId } = await addLimited({ rateLimitRpm: 1 });
      await shift("1 hour");
      expect(await countRequests(productId, 1)).toMatchObject({ taken: 1 });
      await shift("0");
      expect(await countRequests(productId, 2)).toMatchObject({ taken: 1, used: 1 });
    } finally {
      await shift("0");
    }
  });

  test("is deleted once it is an hour old", async () => {
    try {
      const { productId } = await addLimited({ rateLimitRpm: 5 });
      const rows = async () => ctx.raw`select from rate_windows where product_id = ${productId}`;
      await countRequests(productId, 1);
      await removeOldRateWindows(ctx.db);
      expect(await rows()).toHaveLength(1);
      await shift("61 minutes");
      await removeOldRateWindows(ctx.db);
      expect(await rows()).toHaveLength(0);
    } finally {
      await shift("0");
    }
  });
});

test("a start of a turn counts as a call and as a turn, and a refused call is no start", async () => {
  const { productId } = await addLimited({ rateLimitRpm: 4, turnLimitRpm: 2 });
  const calls = [true, false, true, true, true, true].map((startsTurn) => ({ startsTurn }));
  const { windows } = await countCalls(ctx.db, productId, calls);
  expect(windows).toMatchObject({ requests: { taken: 4, used: 4 }, turns: { taken: 2, used: 2 } });
  const refused = toCounted(calls, { windows, engines: [] }).map(({ refusedBy }) => refusedBy?.kind);
  expect(refused).toEqual([undefined, undefined, undefined, "turns", "requests", "requests"]);
});

test("with a limit for turns only, other calls are not counted", async () => {
  const { productId } = await addLimited({ turnLimitRpm: 2 });
  const found = await countCalls(ctx.db, productId, [{ startsTurn: false }, { startsTurn: true }]);
  expect(found.windows).toMatchObject({ requests: undefined, turns: { taken: 1, used: 1, limit: 2 } });
});

test("one statement counts calls and reads the engines that they ask for", async () => {
  const call = await addLimited({ rateLimitRpm: 10 });
  const { id } = await addEngine(ctx, call.productId, "ada");
  const asked = ["nobody", undefined, "ada"].map((engineOf) => ({ startsTurn: false, engineOf }));
  const { windows, engines } = await countCalls(ctx.db, call.productId, asked);
  expect(windows.requests).toMatchObject({ taken: 3, used: 3 });
  expect(engines).toEqual([undefined, undefined, expect.objectContaining({ id, userId: "ada" })]);
  const none = await countCalls(ctx.db, call.productId, [{ startsTurn: false, engineOf: "nobody" }]);
  expect(none).toMatchObject({ windows: { requests: { used: 4 } }, engines: [undefined] });
});
