import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { authenticate } from "../../server/keys/authenticate.ts";
import type { ProductCaller } from "../../server/keys/caller.ts";
import { createKey } from "../../server/keys/key-format.ts";
import { revokePlatformKey } from "../../server/keys/revoke-platform-key.ts";
import { KeyStates } from "../../server/keys/key-states.ts";
import { addProduct, openPlatformContext, type PlatformContext } from "../support/platform-context.ts";

let ctx: PlatformContext;
beforeAll(async () => {
  ctx = await openPlatformContext();
});
afterAll(async () => {
  await ctx?.[Symbol.asyncDispose]();
});

interface Watched {
  ctx: PlatformContext;
  now: { ms: number };
  /** How many statements the database got. */
  queries: () => number;
  breakDatabase: (isBroken: boolean) => void;
}

/** A cache of its own, a clock that a test moves, and a count of the queries. */
function watch(): Watched {
  const now = { ms: 1_000_000 };
  let count = 0;
  let isBroken = false;
  const session = ctx.db._.session;
  const prepareQuery = (...args: Parameters<typeof session.prepareQuery>) => {
    const prepared = session.prepareQuery(...args);
    const execute = prepared.execute.bind(prepared);
    prepared.execute = async (values) => {
      if (isBroken) throw Object.assign(new Error("refused"), { code: "ECONNREFUSED" });
      if (args[0].sql.startsWith("select")) count += 1;
      return execute(values);
    };
    return prepared;
  };
  const db = Object.create(ctx.db, {
    session: { value: Object.create(session, { prepareQuery: { value: prepareQuery } }) },
  });
  const base = { ...ctx, db, clock: { ...ctx.clock, now: () => now.ms } };
  return {
    ctx: { ...base, keyStates: new KeyStates(base) },
    now,
    queries: () => count,
    breakDatabase: (broken) => {
      isBroken = broken;
    },
  };
}

const reasonOf = async (call: Promise<unknown>) =>
  call.then(
    () => "known",
    (error: { reason: string }) => error.reason,
  );
const guess = async (watched: Watched, address: string) =>
  reasonOf(authenticate(watched.ctx, createKey("platform").plaintext, address));

async function guessMany(watched: Watched, address: string, count: number): Promise<string[]> {
  const reasons: string[] = [];
  for (let sent = 0; sent < count; sent += 1) reasons.push(await guess(watched, address));
  return reasons;
}

describe("unknown keys from one address", () => {
  test("reach the database fifty times at once and five times a second, whatever their number", async () => {
    const watched = watch();
    const reasons = await guessMany(watched, "a", 300);
    expect(reasons.slice(0, 50)).toEqual(Array.from({ length: 50 }, () => "INVALID_KEY"));
    expect(new Set(reasons.slice(50))).toEqual(new Set(["RATE_LIMITED"]));
    expect(watched.queries()).toBe(50);
    watched.now.ms += 2_000;
    await guessMany(watched, "a", 100);
    expect(watched.queries()).toBe(60);
  });

  test("do not limit those of another address", async () => {
    const watched = watch();
    await guessMany(watched, "a", 100);
    expect(await guess(watched, "b")).toBe("INVALID_KEY");
  });

  test("of many addresses are limited together", async () => {
    const watched = watch();
    for (let address = 0; address < 40; address += 1) await guessMany(watched, `many-${address}`, 30);
    expect(watched.queries()).toBe(500);
  });

  test("are refused with the time after which another one is looked up", async () => {
    const watched = watch();
    await guessMany(watched, "a", 50);
    const refused = authenticate(watched.ctx, createKey("platform").plaintext, "a");
    await expect(refused).rejects.toMatchObject({ reason: "RATE_LIMITED", retryAfterMs: 1_000 });
  });

  test("that arrive all at once reach the database fifty times, and their number leaves no debt", async () => {
    const watched = watch();
    const reasons = await Promise.all(Array.from({ length: 2_000 }, async () => guess(watched, "a")));
    expect(reasons.filter((reason) => reason === "INVALID_KEY").length).toBe(50);
    expect(watched.queries()).toBe(50);
    watched.now.ms += 10_000;
    await Promise.all(Array.from({ length: 200 }, async () => guess(watched, "a")));
    expect(watched.queries()).toBe(100);
  });

  test("that come again after a refusal are limited together, from however many addresses", async () => {
    const watched = watch();
    const keys = Array.from({ length: 1_200 }, (_, index) => ({
      key: createKey("platform").plaintext,
      address: `again-${index % 40}`,
    }));
    const sendAll = async () =>
      Promise.all(keys.map(async ({ key, address }) => reasonOf(authenticate(watched.ctx, key, address))));
    await sendAll();
    expect(watched.queries()).toBe(500);
    watched.now.ms += 600;
    await sendAll();
    expect(watched.queries()).toBe(600);
  });

  test("are not charged while the database is away", async () => {
    const watched = watch();
    watched.breakDatabase(true);
    expect(new Set(await guessMany(watched, "a", 100))).toEqual(new Set(["DATABASE_UNAVAILABLE"]));
    watched.breakDatabase(false);
    expect(await guess(watched, "a")).toBe("INVALID_KEY");
  });
});

test("an unknown key that comes again is refused without a query for five seconds", async () => {
  const watched = watch();
  const { plaintext } = createKey("platform");
  for (let sent = 0; sent < 200; sent += 1) {
    expect(await reasonOf(authenticate(watched.ctx, plaintext, "a"))).toBe("INVALID_KEY");
  }
  expect(watched.queries()).toBe(1);
  watched.now.ms += 5_000;
  expect(await reasonOf(authenticate(watched.ctx, plaintext, "a"))).toBe("INVALID_KEY");
  expect(watched.queries()).toBe(2);
});

describe("a valid key behind the address of a guesser", () => {
  test("that was used before works at every attempt, also after a removal of a product and an outage", async () => {
    const watched = watch();
    const { apiKey } = await addProduct(ctx);
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
    await guessMany(watched, "a", 100);
    for (let round = 0; round < 5; round += 1) {
      watched.now.ms += 501;
      expect(await guess(watched, "a")).not.toBe("known");
      expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
    }
    watched.ctx.keyStates.clear();
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
    watched.now.ms += 501;
    watched.breakDatabase(true);
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("DATABASE_UNAVAILABLE");
    watched.breakDatabase(false);
    await guessMany(watched, "a", 100);
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
  });

  test("that was used before is not forgotten, however many look-ups wait for the database", async () => {
    const watched = watch();
    const { apiKey } = await addProduct(ctx);
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
    watched.now.ms += 501;
    await guessMany(watched, "a", 100);
    watched.breakDatabase(true);
    const { keyStates } = watched.ctx;
    const lookUps = Array.from({ length: 10_001 }, async (_, index) =>
      reasonOf(keyStates.find({ kind: "platform", hash: `hash ${index}` })),
    );
    await Promise.all(lookUps);
    watched.breakDatabase(false);
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
  });

  test("that is new works at its second attempt, while the guesses go on", async () => {
    const watched = watch();
    const { apiKey } = await addProduct(ctx);
    await guessMany(watched, "a", 200);
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("RATE_LIMITED");
    watched.now.ms += 1_000;
    await guessMany(watched, "a", 200);
    expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
  });

  test("uses nothing up, so a gateway may begin with any number of keys at once", async () => {
    const watched = watch();
    const { apiKey } = await addProduct(ctx);
    for (let sent = 0; sent < 100; sent += 1) {
      watched.now.ms += 501;
      expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("known");
    }
    await guessMany(watched, "a", 49);
    expect(await guess(watched, "a")).toBe("INVALID_KEY");
  });

  test("that is revoked stays KEY_REVOKED, however often it comes", async () => {
    const watched = watch();
    const { apiKey } = await addProduct(ctx);
    const { keyId } = (await authenticate(ctx, apiKey)) as ProductCaller;
    await revokePlatformKey(ctx, { keyId, graceSeconds: 0, idempotency: NO_RECORD });
    for (let sent = 0; sent < 100; sent += 1) {
      watched.now.ms += 501;
      expect(await reasonOf(authenticate(watched.ctx, apiKey, "a"))).toBe("KEY_REVOKED");
    }
  });
});
