import { afterAll, beforeAll, expect, test } from "vitest";
import { findEngine } from "../../db/engines.ts";
import { deleteReplicas } from "../../db/replicas.ts";
import type { IdempotencyRecord } from "../../server/idempotency/idempotency-record.ts";
import { verifyAudit } from "../../server/audit/verify-audit.ts";
import { destroyEngine } from "../../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../../server/engines/operations/provision-engine.ts";
import { restartEngine } from "../../server/engines/operations/restart-engine.ts";
import { rotateEngineKey } from "../../server/engines/operations/rotate-engine-key.ts";
import { startEngine } from "../../server/engines/operations/start-engine.ts";
import { stopEngine } from "../../server/engines/operations/stop-engine.ts";
import { checkTombstones } from "../../server/engines/reconcile/check-tombstones.ts";
import { acquireEngine } from "../../server/engines/access/acquire-engine.ts";
import { hashKey } from "../../server/keys/key-format.ts";
import type { CallReport } from "../support/memory-runtime.ts";
import { openHouse, openSite, toCall, type House, type Site } from "./open-house.ts";

/*
 * A crash is simulated between two steps: the runtime call in progress throws an error that nothing handles, and that
 * replica does no more work. The next replica opens the same database and daemon.
 */

let site: Site;

class Crash extends Error {}

/** Crashes at the n-th boundary: there is one before and one after each runtime call. */
function crashAt(house: House, boundary: number): { reached(): boolean } {
  let count = 0;
  house.runtime.onCall = (_report: CallReport) => {
    count += 1;
    if (count >= boundary) throw new Crash(`at boundary ${count}`);
  };
  return { reached: () => count >= boundary };
}

/** An idempotency record that keeps its subject over a crash; `retry` opens it as a resumed one. */
function openRecord(): { first: IdempotencyRecord; retry(): IdempotencyRecord } {
  let subject: string | null = null;
  const make = (resumed: boolean): IdempotencyRecord => ({
    resumed,
    get subject() {
      return subject;
    },
    setSubject: async (_tx, noted) => {
      subject = noted;
    },
    forgetSubject: async () => {
      subject = null;
    },
    complete: async () => {},
  });
  return { first: make(false), retry: () => make(true) };
}

type Operation = (house: House, userId: string, idempotency: IdempotencyRecord) => Promise<unknown>;

interface Scenario {
  prepare: Operation[];
  operate: Operation;
  /** After the next replica has reconciled the engine; `retried` is the reply to a retry. */
  expectSteady(house: House, userId: string, retried: unknown): Promise<void>;
}

const provision: Operation = (house, userId, idempotency) =>
  provisionEngine(house.ctx, toCall(house, userId, idempotency));
const stop: Operation = (house, userId, idempotency) =>
  stopEngine(house.ctx, toCall(house, userId, idempotency));
const start: Operation = (house, userId, idempotency) =>
  startEngine(house.ctx, toCall(house, userId, idempotency));
const restart: Operation = (house, userId, idempotency) =>
  restartEngine(house.ctx, toCall(house, userId, idempotency));
const destroy: Operation = (house, userId, idempotency) =>
  destroyEngine(house.ctx, toCall(house, userId, idempotency));
const rotate: Operation = (house, userId, idempotency) =>
  rotateEngineKey(house.ctx, { ...toCall(house, userId, idempotency), when: "now" });

const rowOf = (house: House, userId: string) =>
  findEngine(house.ctx.db, { productId: house.productId, userId });
const containersOf = (engineId: string) =>
  [...site.daemon.containers.values()].filter((container) => container.spec.engineId === engineId);

async function expectRunningWith(house: House, userId: string, apiKey: string): Promise<void> {
  const row = await rowOf(house, userId);
  expect(row).toMatchObject({ status: "running", keyHash: hashKey(apiKey), nextKeyHash: null });
  const containers = containersOf(row?.id ?? "");
  expect(containers).toHaveLength(1);
  expect(containers[0]).toMatchObject({ state: "running" });
  expect(containers[0]?.spec.environment["ENGINE_KEY_HASH"]).toBe(hashKey(apiKey));
  using held = await acquireEngine(house.ctx, { ...toCall(house, userId), timeoutMs: 60_000 });
  expect(held.apiKey).toBe(apiKey);
}

const toKey = (reply: unknown): string =>
  typeof reply === "object" && reply !== null && "apiKey" in reply ? String(reply.apiKey) : "no key";

const scenarios = {
  provision: {
    prepare: [],
    operate: provision,
    expectSteady: (house, userId, retried) => expectRunningWith(house, userId, toKey(retried)),
  },
  stop: {
    prepare: [provision],
    operate: stop,
    expectSteady: async (house, userId) => {
      const row = await rowOf(house, userId);
      expect(row).toMatchObject({ status: "stopped", desired: "stopped" });
      expect(containersOf(row?.id ?? "").map((container) => container.state)).toEqual(["exited"]);
    },
  },
  start: {
    prepare: [provision, stop],
    operate: start,
    expectSteady: async (house, userId) => {
      const row = await rowOf(house, userId);
      expect(row).toMatchObject({ status: "running", generation: 2 });
      expect(containersOf(row?.id ?? "").map((container) => container.state)).toEqual(["running"]);
    },
  },
  restart: {
    prepare: [provision],
    operate: restart,
    expectSteady: async (house, userId) => {
      expect(await rowOf(house, userId)).toMatchObject({ status: "running", generation: 2, restarts: 1 });
    },
  },
  destroy: {
    prepare: [provision],
    operate: destroy,
    expectSteady: async (house, userId, retried) => {
      expect(await rowOf(house, userId)).toBeUndefined();
      const engineId =
        typeof retried === "object" && retried !== null && "engineId" in retried ? retried.engineId : "";
      expect(containersOf(String(engineId))).toEqual([]);
      expect([...site.daemon.volumes.values()].some((volume) => volume.engineId === engineId)).toBe(false);
      await checkTombstones(house.ctx);
    },
  },
  rotate: {
    prepare: [provision],
    operate: rotate,
    expectSteady: (house, userId, retried) => expectRunningWith(house, userId, toKey(retried)),
  },
} as const satisfies Record<string, Scenario>;

/** True when the operation finished before it reached the boundary. */
async function dieAndResume(scenario: Scenario, userId: string, boundary: number): Promise<boolean> {
  const records = openRecord();
  const dead = await openHouse(site);
  for (const prepare of scenario.prepare) await prepare(dead, userId, openRecord().first);
  const crash = crashAt(dead, boundary);
  const answer = await scenario.operate(dead, userId, records.first).catch((error: unknown) => error);
  const finished = !crash.reached();
  if (finished) expect(answer).not.toBeInstanceOf(Error);
  // Once the engine has a row, provision returns its key even when the boot fails.
  else expect(answer instanceof Crash || toKey(answer) !== "no key").toBe(true);
  await deleteReplicas(dead.ctx.db, [dead.ctx.replica.id]);
  await dead[Symbol.asyncDispose]();

  await using next = await openHouse(site);
  const left = await rowOf(next, userId);
  if (left !== undefined) await next.ctx.reconciler.reconcile(left.id);
  const retried = finished ? answer : await scenario.operate(next, userId, records.retry());
  await scenario.expectSteady(next, userId, retried);
  await deleteReplicas(next.ctx.db, [next.ctx.replica.id]);
  expect(await verifyAudit(next.ctx, { scope: site.productId })).toMatchObject({ ok: true });
  return finished;
}

/** More boundaries than any operation has. The test fails if no run finished without a crash. */
const MAX_BOUNDARIES = 60;

/** Declares one test for each of the operations. */
export function testCrashes(names: readonly (keyof typeof scenarios)[]): void {
  beforeAll(async () => {
    // Each boundary leaves an engine with a port of its own.
    site = await openSite({ ports: 200 });
  });
  afterAll(async () => {
    await site[Symbol.asyncDispose]();
  });

  test.each(names)(
    "after a crash at any point of %s, the next replica completes it, and a retry gets the same reply",
    async (name) => {
      let finished = false;
      for (let boundary = 1; boundary <= MAX_BOUNDARIES && !finished; boundary += 1) {
        finished = await dieAndResume(scenarios[name], `${name}-${boundary}`, boundary);
      }
      expect(finished, "the operation has more boundaries than were tried").toBe(true);
    },
  );
}
