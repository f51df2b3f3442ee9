import { expect, test } from "vitest";
import { destroyEngine } from "../server/engines/operations/destroy-engine.ts";
import { provisionEngine } from "../server/engines/operations/provision-engine.ts";
import { restartEngine } from "../server/engines/operations/restart-engine.ts";
import { stopEngine } from "../server/engines/operations/stop-engine.ts";
import { openLog } from "../server/log.ts";
import { Metrics, type LoopTick } from "../server/metrics.ts";
import { systemClock } from "../server/time/clock.ts";
import { startLoop } from "../server/time/loop.ts";
import { openHouse, openSite, toCall } from "./engines/open-house.ts";

test("each change of an engine's status reaches the subscribers once", async () => {
  await using site = await openSite({ config: { healthTimeoutMs: 60_000 } });
  await using house = await openHouse(site);
  const moves: string[] = [];
  const subscription = house.ctx.metrics.subscribe({
    statusMoved: (from, to) => void moves.push(`${from ?? "none"} ${to ?? "none"}`),
  });
  const call = toCall(house, "ada");
  await provisionEngine(house.ctx, call);
  await restartEngine(house.ctx, call);
  await stopEngine(house.ctx, call);
  await destroyEngine(house.ctx, call);
  const expected = [
    "none provisioning",
    "provisioning running",
    "running starting",
    "starting running",
    "running stopping",
    "stopping stopped",
    "stopped destroying",
    "destroying none",
  ];
  expect(moves).toEqual(expected);
  subscription[Symbol.dispose]();
  await provisionEngine(house.ctx, call);
  expect(moves).toEqual(expected);
});

test("each tick of a loop reaches the subscribers, with its duration and whether it failed", async () => {
  const metrics = new Metrics();
  const ticks: LoopTick[] = [];
  const { promise: twice, resolve } = Promise.withResolvers<void>();
  metrics.subscribe({ loopTicked: (tick) => void (ticks.push(tick) === 2 && resolve()) });
  let count = 0;
  const tick = async () => {
    count += 1;
    if (count === 2) throw new Error("made to fail");
  };
  const log = openLog({ level: "silent", pretty: false });
  await using loop = startLoop({ name: "test", intervalMs: 600_000, clock: systemClock, log, metrics, tick });
  loop.wake();
  await twice;
  const durationMs: unknown = expect.any(Number);
  expect(ticks).toEqual([
    { loop: "test", durationMs, failed: false },
    { loop: "test", durationMs, failed: true },
  ]);
});

test("a Metrics object passes an ended request to each of its subscribers", () => {
  const metrics = new Metrics();
  const request = { route: "engines.stop", outcome: "ENGINE_NOT_FOUND", durationMs: 3 };
  metrics.requestEnded(request);
  const ended: unknown[] = [];
  metrics.subscribe({ requestEnded: (one) => void ended.push(one) });
  metrics.subscribe({});
  metrics.requestEnded(request);
  expect(ended).toEqual([request]);
});
