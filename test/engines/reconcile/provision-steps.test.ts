import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { findEngine, findEngineById, updateEngineIf, type EnginePatch } from "../../../db/engines.ts";
import { systemClock } from "../../../server/time/clock.ts";
import { toDefaultImage } from "../../../server/engines/model/engine-spec.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { MemoryDaemon } from "../../support/memory-daemon.ts";
import { answerAsEngine } from "../../support/memory-engine.ts";
import type { CallReport } from "../../support/memory-runtime.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

/** No look is ever too old to be planned on, however slow the machine is. */
const clock = { ...systemClock, now: () => 0 };
/** Nor does a probe fail, which would be followed by another look. */
const config = { healthTimeoutMs: 60_000 };

let site: Site;
let house: House;

beforeAll(async () => {
  site = await openSite({ config });
});
beforeEach(async () => {
  house = await openHouse(site, { clock });
});
afterEach(async () => {
  await house[Symbol.asyncDispose]();
});
afterAll(async () => {
  await site[Symbol.asyncDispose]();
});

const rowOf = (userId: string) => findEngine(house.ctx.db, { productId: house.productId, userId });
const callsOf = () => house.runtime.calls.map(({ call }) => call);

/** Runs once, in the middle of the first such call. */
function during(call: CallReport["call"], when: CallReport["when"], act: () => Promise<void> | void): void {
  house.runtime.onCall = async (report) => {
    if (report.call !== call || report.when !== when) return;
    house.runtime.onCall = undefined;
    await act();
  };
}

/** As another verb, or another driver, would write it. */
async function overwrite(userId: string, patch: EnginePatch): Promise<void> {
  const row = await rowOf(userId);
  await updateEngineIf(house.ctx.db, { id: row?.id ?? "" }, patch);
}

test("a first boot asks the daemon whether it is ours, and looks at the container once it was started", async () => {
  await provisionEngine(house.ctx, toCall(house, "ada"));
  expect(callsOf()).toEqual(["findImage", "check", "check", "ensure", "start", "observe"]);
});

test("a stop that is wanted while the container is made is never followed by its start", async () => {
  during("ensure", "after", () => overwrite("bea", { desired: "stopped" }));
  const { engine } = await provisionEngine(house.ctx, toCall(house, "bea"));
  expect(engine).toMatchObject({ status: "stopped" });
  expect(callsOf()).not.toContain("start");
});

test("a driver that lost its place while the container was made does not start it", async () => {
  during("ensure", "after", () => overwrite("cyd", { fencingToken: 1_000 }));
  const { engine } = await provisionEngine(house.ctx, { ...toCall(house, "cyd") });
  expect(engine.status).toBe("provisioning");
  expect(callsOf()).not.toContain("start");
});

test("a container that is adopted is looked at before anything is done to it", async () => {
  house.runtime.failNext("ensure", "unreachable", { carriedOut: true });
  await provisionEngine(house.ctx, toCall(house, "dan"));
  await house.ctx.reconciler.reconcile((await rowOf("dan"))?.id ?? "");
  expect(await rowOf("dan")).toMatchObject({ status: "running" });
  expect(callsOf().filter((call) => call === "ensure")).toHaveLength(1);
});

test("what happens to a container after the last look is looked at, and nobody waits for it", async () => {
  let looks = 0;
  house.runtime.onCall = async ({ call, when }) => {
    if (call !== "observe" || when !== "after") return;
    looks += 1;
    const row = await rowOf("eli");
    // The look that finds the process: it is over, and what it saw is yet to be recorded.
    if (looks === 1 && row !== undefined) house.ctx.reconciler.onRuntimeEvent(row.id);
  };
  const { engine } = await provisionEngine(house.ctx, toCall(house, "eli"));
  expect(engine).toMatchObject({ status: "running", generation: 1 });
  await expect.poll(() => looks).toBe(2);
});

test("a process is recorded as ready when it answered, and not for the one before it", async () => {
  /** By each process, in the order of their starts. */
  const answers: number[] = [];
  const daemon = new MemoryDaemon({
    handler: (container, environment) => {
      const answer = answerAsEngine(container, environment);
      const index = answers.push(0) - 1;
      return (request, response) => {
        const count = (answers[index] ?? 0) + 1;
        answers[index] = count;
        // Only the first is too early, so that the second is of the wait for the boot.
        if (index === 0 && count === 1) response.writeHead(503).end();
        else answer(request, response);
      };
    },
  });
  await using slow = await openSite({ config, daemon });
  await using other = await openHouse(slow, { clock });
  other.runtime.onCall = async ({ call, when, input }) => {
    // After the process was seen and has answered, before it is seen again.
    if (call !== "observe" || when !== "before" || answers.length !== 1 || answers[0] !== 2) return;
    await other.runtime.restart(String(input));
  };
  const { engine } = await provisionEngine(other.ctx, toCall(other, "fay"));
  const container = [...daemon.containers.values()].find(({ spec }) => spec.engineId === engine.engineId);
  const row = await findEngineById(other.ctx.db, engine.engineId);
  expect(row).toMatchObject({ status: "running", generation: 1 });
  expect(row?.processIdentity).toBe(`${container?.containerId}@${container?.startedAt}`);
  expect(answers, "the second process was asked itself").toEqual([2, expect.any(Number)]);
  expect(answers[1]).toBeGreaterThan(0);
});

test("an image that has to be pulled is pulled by the control loop, and the container is made right after", async () => {
  const images = new Set<string>();
  const daemon = new MemoryDaemon({ images });
  await using bare = await openSite({ config, daemon });
  await using other = await openHouse(bare, { clock });
  other.runtime.onCall = ({ call, when }) => {
    if (call === "findImage" && when === "after") images.add(toDefaultImage(bare.config));
  };
  const { engine } = await provisionEngine(other.ctx, toCall(other, "gus"));
  expect(engine).toMatchObject({ status: "running", imageId: toDefaultImage(bare.config) });
  expect(other.runtime.calls.map(({ call }) => call)).toEqual([
    "findImage",
    "check",
    "check",
    "resolveImage",
    "ensure",
    "start",
    "observe",
  ]);
});
