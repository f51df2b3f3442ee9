import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDatabase, type Database } from "../../db/client.ts";
import { removeExpiredIdempotencyRecords } from "../../db/idempotency.ts";
import { toFingerprint } from "../../server/idempotency/fingerprint.ts";
import type { IdempotencyRecord } from "../../server/idempotency/idempotency-record.ts";
import { runIdempotent, type IdempotentCall } from "../../server/idempotency/run-idempotent.ts";
import { DomainError } from "../../server/errors.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openIdempotency, type Idempotency, type IdempotencyContext } from "./open-idempotency.ts";

let site: Idempotency;
let database: Database;
beforeAll(async () => {
  site = await openIdempotency();
  ({ database } = site);
});
afterAll(async () => {
  await site?.[Symbol.asyncDispose]();
});

const openReplica = async () => site.openReplica();

const makeCall = (more: Partial<IdempotentCall> = {}): IdempotentCall => ({
  scope: randomUUID(),
  key: randomUUID(),
  procedure: "engines.provision",
  input: { userId: "ann", wait: true },
  onLost: "resume",
  ...more,
});

const fail = async (error: unknown): Promise<never> => {
  throw error;
};

describe("a key that was used", () => {
  test("answers the same call with the stored reply on any replica, and does not run it again", async () => {
    const [one, two] = await Promise.all([openReplica(), openReplica()]);
    const call = makeCall();
    let runs = 0;
    const work = async () => {
      runs += 1;
      return { apiKey: "ehe_secret", lone: "\ud800", nothing: null };
    };
    const first = await runIdempotent(one, call, work);
    expect(await runIdempotent(one, call, work)).toEqual(first);
    const reordered = { ...call, input: { wait: true, userId: "ann" } };
    expect(await runIdempotent(two, reordered, work)).toEqual(first);
    expect(runs).toBe(1);
  });

  test("stores no plaintext, and its sealed reply does not open for another key", async () => {
    const ctx = await openReplica();
    const [call, other] = [makeCall(), makeCall()];
    await runIdempotent(ctx, call, async () => ({ apiKey: "ehe_secret" }));
    await runIdempotent(ctx, other, async () => ({ apiKey: "ehe_other" }));
    const rows = await database.db.execute(sql`select * from idempotency where scope = ${call.scope}`);
    expect(JSON.stringify(rows)).not.toContain("ehe_secret");
    await database.db.execute(
      sql`update idempotency set reply_sealed =
            (select reply_sealed from idempotency where scope = ${call.scope})
          where scope = ${other.scope}`,
    );
    await expect(runIdempotent(ctx, other, async () => ({}))).rejects.toThrow("belongs to another row");
  });

  test("is refused for another input or procedure, while the first call runs and after it", async () => {
    const ctx = await openReplica();
    const call = makeCall();
    const blocked = Promise.withResolvers<number>();
    const running = runIdempotent(ctx, call, async () => blocked.promise);
    const mismatches = async () => {
      for (const other of [{ input: { userId: "bob" } }, { procedure: "engines.stop" }]) {
        const again = runIdempotent(ctx, { ...call, ...other }, async () => 2);
        await expect(again).rejects.toMatchObject({ reason: "IDEMPOTENCY_MISMATCH" });
      }
    };
    await mismatches();
    blocked.resolve(1);
    await running;
    await mismatches();
  });

  test("is independent of the same key of another caller", async () => {
    const ctx = await openReplica();
    const key = randomUUID();
    expect(await runIdempotent(ctx, makeCall({ key }), async () => 1)).toBe(1);
    expect(await runIdempotent(ctx, makeCall({ key, input: 2 }), async () => 2)).toBe(2);
  });

  test("is free again after 24 hours", async () => {
    const ctx = await openReplica();
    const call = makeCall();
    await runIdempotent(ctx, call, async () => 1);
    await database.db.execute(
      sql`update idempotency set expires_at = orch_now() where scope = ${call.scope}`,
    );
    expect(await runIdempotent(ctx, { ...call, input: "another" }, async () => 2)).toBe(2);
    const [row] = await database.db.execute(
      sql`select expires_at - created_at = interval '24 hours' as day from idempotency where scope = ${call.scope}`,
    );
    expect(row).toEqual({ day: true });
  });
});

test("of many concurrent calls with one key one runs, and the others get IDEMPOTENCY_IN_PROGRESS", async () => {
  const replicas = await Promise.all([openReplica(), openReplica(), openReplica()]);
  const call = makeCall();
  const blocked = Promise.withResolvers<string>();
  let runs = 0;
  const attempts = Array.from({ length: 12 }, async (_, index) => {
    const ctx = replicas[index % 3];
    if (ctx === undefined) throw new Error("no replica");
    return runIdempotent(ctx, call, async () => {
      runs += 1;
      return blocked.promise;
    });
  });
  let refused = 0;
  for (const attempt of attempts) attempt.catch(() => (refused += 1));
  await expect.poll(() => refused).toBe(11);
  blocked.resolve("done");
  const results = await Promise.allSettled(attempts);
  expect(runs).toBe(1);
  expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
  for (const result of results) {
    if (result.status === "fulfilled") continue;
    expect(result.reason).toMatchObject({ reason: "IDEMPOTENCY_IN_PROGRESS", retryAfterMs: 1_000 });
  }
});

test.each(["resume", "outcome_unknown"] as const)(
  "a call during the first one gets IDEMPOTENCY_IN_PROGRESS, and a call after it gets its reply (%s)",
  async (onLost) => {
    const ctx = await openReplica();
    const call = makeCall({ onLost });
    const begun = Promise.withResolvers<void>();
    const blocked = Promise.withResolvers<string>();
    let runs = 0;
    const work = async () => {
      runs += 1;
      begun.resolve();
      return blocked.promise;
    };
    const first = runIdempotent(ctx, call, work);
    await begun.promise;
    const refusal = { reason: "IDEMPOTENCY_IN_PROGRESS", retryAfterMs: 1_000 };
    await expect(runIdempotent(ctx, call, work)).rejects.toMatchObject(refusal);
    blocked.resolve("done");
    expect(await first).toBe("done");
    expect(await runIdempotent(ctx, call, work)).toBe("done");
    expect(runs).toBe(1);
  },
);

test("calls without a key run each time", async () => {
  const ctx = await openReplica();
  const call = makeCall({ key: undefined });
  let runs = 0;
  for (let round = 0; round < 2; round += 1) {
    await runIdempotent(ctx, call, async (idempotency) => {
      expect(idempotency).toMatchObject({ resumed: false, subject: null });
      runs += 1;
    });
  }
  expect(runs).toBe(2);
});

test("the reply undefined is stored and replayed as undefined", async () => {
  const ctx = await openReplica();
  const call = makeCall();
  expect(await runIdempotent(ctx, call, async () => undefined)).toBeUndefined();
  expect(await runIdempotent<unknown>(ctx, call, async () => "again")).toBeUndefined();
});

test.each(["", "a\0b", "\ud800"])(
  "the key %j is refused, because the database would change it",
  async (key) => {
    const ctx = await openReplica();
    const refused = runIdempotent(ctx, makeCall({ key }), async () => 1);
    await expect(refused).rejects.toMatchObject({ reason: "INVALID_INPUT" });
  },
);

describe("a call that fails", () => {
  test("and forgets its subject frees the key, for another input too", async () => {
    const ctx = await openReplica();
    const call = makeCall();
    const boot = runIdempotent(ctx, call, async (idempotency) => {
      await idempotency.setSubject(database.db, "engine 1");
      await idempotency.forgetSubject();
      return fail(new DomainError("BOOT_FAILED", "exit code 1"));
    });
    await expect(boot).rejects.toMatchObject({ reason: "BOOT_FAILED" });
    const again = await runIdempotent(ctx, { ...call, input: "another" }, async ({ resumed }) => resumed);
    expect(again).toBe(false);
  });

  test.each(["DEADLINE_EXCEEDED", "RUNTIME_UNREACHABLE", "ENGINE_STOPPED", "ENGINE_NOT_FOUND"] as const)(
    "with %s keeps its subject, and a retry on any replica resumes the work",
    async (reason) => {
      const [one, two] = await Promise.all([openReplica(), openReplica()]);
      const call = makeCall();
      const first = runIdempotent(one, call, async (idempotency) => {
        await idempotency.setSubject(database.db, "engine 1");
        return fail(new DomainError(reason, "later"));
      });
      await expect(first).rejects.toMatchObject({ reason });
      const other = runIdempotent(two, { ...call, input: "another" }, async () => 1);
      await expect(other).rejects.toMatchObject({ reason: "IDEMPOTENCY_MISMATCH" });
      const seen: IdempotencyRecord[] = [];
      await runIdempotent(two, call, async (idempotency) => seen.push(idempotency));
      expect(seen).toMatchObject([{ resumed: true, subject: "engine 1" }]);
    },
  );

  test("with an error that is no DomainError keeps its subject too", async () => {
    const ctx = await openReplica();
    const call = makeCall();
    const first = runIdempotent(ctx, call, async (idempotency) => {
      await idempotency.setSubject(database.db, "engine 1");
      return fail(new Error("unexpected"));
    });
    await expect(first).rejects.toThrow("unexpected");
    expect(await runIdempotent(ctx, call, async ({ subject }) => subject)).toBe("engine 1");
  });

  test("without a subject runs anew, whatever the reason", async () => {
    const ctx = await openReplica();
    const call = makeCall();
    const first = runIdempotent(ctx, call, async () => fail(new DomainError("DEADLINE_EXCEEDED", "later")));
    await expect(first).rejects.toMatchObject({ reason: "DEADLINE_EXCEEDED" });
    expect(await runIdempotent(ctx, call, async ({ resumed }) => resumed)).toBe(false);
  });

  test("with an unknown outcome gives every retry the same error", async () => {
    const ctx = await openReplica();
    const call = makeCall({ onLost: "outcome_unknown" });
    const engineError = { status: 502, code: "X", message: "cut" };
    const error = new DomainError("OUTCOME_UNKNOWN", "the engine did not answer", { engineError });
    await expect(runIdempotent(ctx, call, async () => fail(error))).rejects.toBe(error);
    for (let round = 0; round < 2; round += 1) {
      await expect(runIdempotent(ctx, call, async () => 1)).rejects.toMatchObject({
        reason: "OUTCOME_UNKNOWN",
        message: "the engine did not answer",
        engineError,
      });
    }
  });
});

/** Leaves a running record behind, as a killed replica does. */
async function dieMidway(call: IdempotentCall): Promise<IdempotencyContext> {
  const dead = await openReplica();
  const noted = Promise.withResolvers<void>();
  void runIdempotent(dead, call, async (idempotency) => {
    await database.db.transaction(async (tx) => idempotency.setSubject(tx, "engine 1"));
    noted.resolve();
    return new Promise<never>(() => {});
  });
  await noted.promise;
  return dead;
}

const deleteReplica = async (replica: IdempotencyContext) =>
  database.db.execute(sql`delete from replicas where id = ${replica.replica.id}`);

describe("a call whose replica died midway", () => {
  test("is in progress while its replica may live, and is then resumed with its subject", async () => {
    const call = makeCall();
    const dead = await dieMidway(call);
    const next = await openReplica();
    const early = runIdempotent(next, call, async () => 1);
    await expect(early).rejects.toMatchObject({ reason: "IDEMPOTENCY_IN_PROGRESS" });
    await deleteReplica(dead);
    const seen: IdempotencyRecord[] = [];
    expect(
      await runIdempotent(next, call, async (idempotency) => {
        seen.push(idempotency);
        return "resumed";
      }),
    ).toBe("resumed");
    expect(seen).toMatchObject([{ resumed: true, subject: "engine 1" }]);
    expect(await runIdempotent(next, call, async () => "again")).toBe("resumed");
  });

  test("is taken over once the heartbeat of its replica is older than the lease", async () => {
    const call = makeCall();
    const dead = await dieMidway(call);
    const next = await openReplica();
    await database.db.execute(
      sql`update replicas set heartbeat_at = orch_now() - interval '16 seconds' where id = ${dead.replica.id}`,
    );
    expect(await runIdempotent(next, call, async ({ resumed }) => resumed)).toBe(true);
  });

  test("is resumed by exactly one of many concurrent retries", async () => {
    const call = makeCall();
    await deleteReplica(await dieMidway(call));
    const others = await Promise.all([openReplica(), openReplica(), openReplica()]);
    let runs = 0;
    const results = await Promise.allSettled(
      others.map(async (next) =>
        runIdempotent(next, call, async () => {
          runs += 1;
          return "resumed";
        }),
      ),
    );
    expect(runs).toBe(1);
    for (const result of results) {
      if (result.status === "fulfilled") expect(result.value).toBe("resumed");
      else expect(result.reason).toMatchObject({ reason: "IDEMPOTENCY_IN_PROGRESS" });
    }
  });

  test("has an unknown outcome for every retry if it called into an engine", async () => {
    const call = makeCall({ onLost: "outcome_unknown" });
    await deleteReplica(await dieMidway(call));
    const next = await openReplica();
    let runs = 0;
    for (let round = 0; round < 2; round += 1) {
      const retry = runIdempotent(next, call, async () => (runs += 1));
      await expect(retry).rejects.toMatchObject({ reason: "OUTCOME_UNKNOWN" });
    }
    expect(runs).toBe(0);
  });

  test("that was only slow cannot write any more once another replica has taken it over", async () => {
    const call = makeCall();
    const slow = await openReplica();
    const noted = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const late = runIdempotent(slow, call, async (idempotency) => {
      noted.resolve();
      await released.promise;
      await database.db.transaction(async (tx) => {
        await tx.execute(sql`insert into stored_bytes values (${call.scope}, 'replies', now(), 1)`);
        await idempotency.complete(tx, "late");
      });
      return "late";
    });
    await noted.promise;
    await deleteReplica(slow);
    const next = await openReplica();
    expect(await runIdempotent(next, call, async () => "next")).toBe("next");
    released.resolve();
    await expect(late).rejects.toMatchObject({ reason: "IDEMPOTENCY_IN_PROGRESS" });
    const written = await database.db.execute(sql`select 1 from stored_bytes where scope = ${call.scope}`);
    expect(written).toHaveLength(0);
    expect(await runIdempotent(next, call, async () => "again")).toBe("next");
  });

  test("that had completed its record in its transaction is answered with the stored reply", async () => {
    const call = makeCall();
    const dead = await openReplica();
    const completed = Promise.withResolvers<void>();
    void runIdempotent(dead, call, async (idempotency) => {
      await database.db.transaction(async (tx) => idempotency.complete(tx, { apiKey: "ehe_1" }));
      completed.resolve();
      return new Promise<never>(() => {});
    });
    await completed.promise;
    expect(await runIdempotent(await openReplica(), call, async () => ({}))).toEqual({ apiKey: "ehe_1" });
  });
});

test("a record that this replica left behind during a database outage is resumed by this replica", async () => {
  const ctx = await openReplica();
  const call = makeCall();
  const row = ["idempotency", call.scope, call.key ?? ""];
  const { stored } = toFingerprint(ctx.keyring, row, call.input);
  const recordRow = sql`insert into idempotency
    values (${call.scope}, ${call.key}, ${call.procedure}, ${stored}, 'running', ${ctx.replica.id}, 'engine 1', null,
      orch_now(), orch_now() + interval '1 hour')`;
  await database.db.execute(recordRow);
  expect(await runIdempotent(ctx, call, async ({ resumed, subject }) => [resumed, subject])).toEqual([
    true,
    "engine 1",
  ]);
});

test("all expired records are deleted, and the others stay", async () => {
  await using own = await openTestDatabase();
  await using ownDatabase = openDatabase({
    url: own.url,
    poolSize: 2,
    applicationName: "expired-records-test",
  });
  const insert = (count: number, prefix: string) =>
    ownDatabase.db.execute(
      sql`insert into idempotency
          select 'scope', ${prefix} || n, 'p', 'f', 'running', gen_random_uuid(), null, null, orch_now(),
            orch_now() + interval '24 hours'
          from generate_series(1, ${count}::int) n`,
    );
  await insert(1_001, "old");
  await shiftDatabaseClock(own.url, "24 hours");
  await insert(1, "new");
  expect(await removeExpiredIdempotencyRecords(ownDatabase.db)).toBe(1_001);
  expect(await removeExpiredIdempotencyRecords(ownDatabase.db)).toBe(0);
  expect(await ownDatabase.db.execute(sql`select key from idempotency`)).toMatchObject([{ key: "new1" }]);
});
