import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { listAudit } from "../../../server/audit/list-audit.ts";
import { acceptRuntime } from "../../../server/engines/operations/accept-runtime.ts";
import { destroyEngine } from "../../../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { restartEngine } from "../../../server/engines/operations/restart-engine.ts";
import { stopEngine } from "../../../server/engines/operations/stop-engine.ts";
import { NO_RECORD } from "../../../server/idempotency/idempotency-record.ts";
import { runIdempotent } from "../../../server/idempotency/run-idempotent.ts";
import { openProcessRuntime } from "../../../server/runtime/process/runtime.ts";
import { openTempDir } from "../../support/temp-dir.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

let site: Site;
let house: House;

beforeAll(async () => {
  site = await openSite({ config: { healthTimeoutMs: 60_000 } });
  house = await openHouse(site);
  await house.runtime.markInstance();
});
afterAll(async () => {
  await house[Symbol.asyncDispose]();
  await site[Symbol.asyncDispose]();
});

const reason = "the marker was pruned";
const listActions = async () => {
  const { items } = await listAudit(house.ctx, { scope: "platform", limit: 100 });
  return items.map(({ action }) => action).filter((action) => action.startsWith("runtime."));
};

test("an acceptance whose answer was lost is finished by a retry, and is on record once", async () => {
  await provisionEngine(house.ctx, toCall(house, "ada"));
  house.runtime.loseMarker();
  const call = { scope: "operator", key: randomUUID(), procedure: "fleet.acceptRuntime", input: { reason } };
  const accept = async () =>
    runIdempotent(house.ctx, { ...call, onLost: "resume" }, async (idempotency) =>
      acceptRuntime(house.ctx, { reason, idempotency }),
    );
  house.runtime.failNext("markInstance", "unreachable", { completed: true });
  await expect(accept()).rejects.toMatchObject({ reason: "RUNTIME_UNREACHABLE" });
  expect(await listActions()).toEqual(["runtime.accept_requested"]);
  const reply = { runtimeHost: house.runtime.host, engines: 1, volumesMissing: 0 };
  expect(await accept()).toEqual(reply);
  expect(await accept()).toEqual(reply);
  expect(await listActions()).toEqual(["runtime.accepted", "runtime.accept_requested"]);
});

test("a runtime that has the marker, or does not answer, is not accepted, and nothing is on record", async () => {
  const before = await listActions();
  const input = { reason, idempotency: NO_RECORD };
  await expect(acceptRuntime(house.ctx, input)).rejects.toMatchObject({ reason: "RUNTIME_UNCHANGED" });
  house.runtime.loseMarker();
  house.runtime.unreachable(true);
  await expect(acceptRuntime(house.ctx, input)).rejects.toMatchObject({ reason: "RUNTIME_UNREACHABLE" });
  house.runtime.unreachable(false);
  await expect(house.runtime.check()).rejects.toMatchObject({ kind: "changed" });
  expect(await listActions()).toEqual(before);
  await house.runtime.markInstance();
});

test("the process runtime's data directory is accepted without its marker too", async () => {
  await using home = await openTempDir();
  const given = { instanceId: "mine", dataDir: home.path, command: ["none"], log: { warn: () => {} } };
  await using runtime = await openProcessRuntime({ ...given, marked: false });
  await runtime.markInstance();
  await rm(join(home.path, "engines", "marker-mine.json"));
  await expect(runtime.check()).rejects.toMatchObject({ kind: "changed" });
  const ctx = { ...house.ctx, runtime };
  expect(await acceptRuntime(ctx, { reason, idempotency: NO_RECORD })).toEqual({
    runtimeHost: runtime.host,
    engines: 0,
    volumesMissing: 0,
  });
  await runtime.check();
});

test("no operation does anything to a container on a runtime without our marker, until it is accepted", async () => {
  await using ours = await openSite();
  await using other = await openHouse(ours);
  await other.runtime.markInstance();
  for (const userId of ["halt", "again", "gone"]) await provisionEngine(other.ctx, toCall(other, userId));
  const calls: string[] = [];
  other.runtime.loseMarker();
  other.runtime.onCall = ({ call }) => void calls.push(call);
  const changed = {
    reason: "RUNTIME_CHANGED",
    message: expect.stringMatching(/an operator must correct or accept it.*on record/),
  };
  await expect(stopEngine(other.ctx, toCall(other, "halt"))).rejects.toMatchObject(changed);
  await expect(restartEngine(other.ctx, toCall(other, "again"))).rejects.toMatchObject(changed);
  await expect(destroyEngine(other.ctx, toCall(other, "gone"))).rejects.toMatchObject(changed);
  expect(new Set(calls)).toEqual(new Set(["observe", "hasData", "check"]));
  expect([...ours.daemon.containers.values()].map(({ state }) => state)).toEqual(Array(3).fill("running"));
  await acceptRuntime(other.ctx, { reason: "it is ours", idempotency: NO_RECORD });
  expect(await stopEngine(other.ctx, toCall(other, "halt"))).toMatchObject({ status: "stopped" });
  expect(await restartEngine(other.ctx, toCall(other, "again"))).toMatchObject({ generation: 2 });
  await destroyEngine(other.ctx, toCall(other, "gone"));
  expect(ours.daemon.containers.size).toBe(2);
});
