import { sql } from "drizzle-orm";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openDatabase, type Database } from "../../db/client.ts";
import { insertReplica } from "../../db/replicas.ts";
import { systemClock } from "../../server/time/clock.ts";
import type { Log } from "../../server/log.ts";
import { Heartbeat } from "../../server/replicas/heartbeat.ts";
import { registerSoleReplica } from "../../server/replicas/register-sole-replica.ts";
import { removeDeadReplicas } from "../../server/replicas/remove-dead-replicas.ts";
import { registerReplica } from "../../server/replicas/replica.ts";
import { testConfig } from "../engines/test-config.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";
import { openTestDatabase, type TestDatabase } from "../support/test-database.ts";

let home: TestDatabase;
let database: Database;
const config = testConfig({ leaseMs: 15_000 });

beforeEach(async () => {
  home = await openTestDatabase();
  database = openDatabase({ url: home.url, poolSize: 2, applicationName: "replica-test" });
});
afterEach(async () => {
  await database.close();
  await home.close();
});

const ctx = () => ({ db: database.db, config });

test("a replica whose process runs is alive", async () => {
  const replica = await registerReplica(ctx(), { db: database.db, runtimeHost: "host" });
  const { dead, alive } = await removeDeadReplicas(ctx(), { ownId: "", unbroken: true });
  expect(dead).toEqual([]);
  expect(alive.map((other) => other.id)).toEqual([replica.id]);
  await replica.sendHeartbeat();
  expect(replica.holdsLease()).toBe(true);
});

test("a replica whose process is gone is dead at once, before its lease expires", async () => {
  const replica = await registerReplica(ctx(), { db: database.db, runtimeHost: "host" });
  const { alive } = await removeDeadReplicas(ctx(), { ownId: "", unbroken: false });
  const gone = alive[0]?.processIdentity?.replace(/\/\d+\/(\d+)$/, "/$1/1") ?? null;
  const id = crypto.randomUUID();
  await insertReplica(database.db, { id, runtimeHost: "host", processIdentity: gone });
  expect((await removeDeadReplicas(ctx(), { ownId: replica.id, unbroken: false })).dead).toEqual([id]);
});

test("a replica declares another one dead only after unbroken heartbeats of its own", async () => {
  const id = crypto.randomUUID();
  await insertReplica(database.db, { id, runtimeHost: "host", processIdentity: "another boot/pid:[1]/1/1" });
  await shiftDatabaseClock(home.url, "16 seconds");
  expect((await removeDeadReplicas(ctx(), { ownId: "", unbroken: false })).dead).toEqual([]);
  expect((await removeDeadReplicas(ctx(), { ownId: "", unbroken: true })).dead).toEqual([id]);
});

test("a replica that was declared dead learns it from its next heartbeat, and then has no lease", async () => {
  const replica = await registerReplica(ctx(), { db: database.db, runtimeHost: "host" });
  await database.raw`delete from replicas`;
  await replica.sendHeartbeat();
  expect(replica.isDeclaredDead).toBe(true);
  expect(replica.holdsLease()).toBe(false);
});

const ignore = () => {};

function logTo(onInfo: (fields: object) => void): Log {
  const log: Log = { debug: ignore, info: onInfo, warn: ignore, error: ignore, child: () => log };
  return log;
}

test("of three replicas that start together, one registers and the others log that they wait for it", async () => {
  // The test sends no heartbeats, so the lease must be longer than any pause of the machine.
  const patient = testConfig({ leaseMs: 600_000 });
  const leaving = new AbortController();
  const starts = [1, 2, 3].map(() => {
    const waitedFor = new Set<unknown>();
    const log = logTo((fields) => "other" in fields && waitedFor.add(fields.other));
    const soleCtx = {
      db: database.db,
      heartbeat: database.heartbeat,
      config: patient,
      log,
      clock: systemClock,
      runtimeHost: "host",
    };
    return { waitedFor, registered: registerSoleReplica(soleCtx, leaving.signal) };
  });
  const first = await Promise.race(starts.map(({ registered }) => registered));
  const waiting = () => starts.filter(({ waitedFor }) => waitedFor.size > 0);
  await expect.poll(() => waiting().length).toBe(2);
  leaving.abort(new Error("enough"));
  const answers = await Promise.allSettled(starts.map(({ registered }) => registered));
  expect(answers.filter((answer) => answer.status === "fulfilled")).toHaveLength(1);
  for (const { waitedFor } of waiting()) expect([...waitedFor]).toEqual([first.id]);
  expect((await database.raw`select id from replicas`).map((row) => row["id"])).toEqual([first.id]);
});

test("a heartbeat arrives while every other connection is busy, and while dead replicas are recovered from", async () => {
  const replica = await registerReplica(
    { db: database.heartbeat, config },
    { db: database.db, runtimeHost: "host" },
  );
  const gone = crypto.randomUUID();
  await insertReplica(database.db, { id: gone, runtimeHost: "host", processIdentity: null });
  await shiftDatabaseClock(home.url, "16 seconds");
  const isRecovered = Promise.withResolvers<void>();
  const recovered: string[][] = [];
  const heartbeat = new Heartbeat({ db: database.heartbeat, config: { ...config, leaseMs: 1 } }, replica);
  const takeOverFrom = async (ids: string[]) => {
    recovered.push(ids);
    await isRecovered.promise;
  };
  await using blocker = openDatabase({ url: home.url, poolSize: 2, applicationName: "blocker" });
  const released = Promise.withResolvers<void>();
  const locked = Promise.withResolvers<void>();
  const blocking = blocker.db.transaction(async (tx) => {
    await tx.execute(sql`select pg_advisory_xact_lock(42)`);
    locked.resolve();
    await released.promise;
  });
  await locked.promise;
  // More statements and transactions than the pool has connections: all wait for the lock.
  const waitForLock = sql`select pg_advisory_xact_lock_shared(42)`;
  const flood = Array.from({ length: 20 }, async (_, index) =>
    index % 2 === 0
      ? database.db.execute(waitForLock)
      : database.db.transaction(async (tx) => tx.execute(waitForLock)),
  );
  await heartbeat.send();
  const recovering = heartbeat.recover(takeOverFrom);
  await heartbeat.send();
  expect(recovered).toEqual([[gone]]);
  isRecovered.resolve();
  await recovering;
  await heartbeat.send();
  await heartbeat.recover(takeOverFrom);
  expect(recovered).toEqual([[gone]]);
  released.resolve();
  await Promise.all([blocking, ...flood]);
});
