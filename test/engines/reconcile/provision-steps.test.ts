import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { findEngine, findEngineById, updateEngineIf, type EnginePatch } from "../../../db/engines.ts";
import { toDefaultImage } from "../../../server/engines/model/engine-spec.ts";
import { provisionEngine } from "../../../server/engines/operations/provision-engine.ts";
import { MemoryDaemon } from "../../support/memory-daemon.ts";
import { answerAsEngine } from "../../support/memory-engine.ts";
import type { CallReport } from "../../support/memory-runtime.ts";
import { openHouse, openSite, toCall, type House, type Site } from "../open-house.ts";

/** No probe times out on a slow machine: another observation would follow it. */
const config = { healthTimeoutMs: 60_000 };
/** The calls of an observation that finds no container. */
const OBSERVE_NONE = ["observe", "hasData", "check"];

let site: Site;
let house: House;

beforeAll(async () => {
  site = await openSite({ config });
});
beforeEach(async () => {
  house = await openHouse(site);
});
afterEach(async () => {
  await house[Symbol.asyncDispose]();
});
afterAll(async () => {
  await site[Symbol.asyncDispose]();
});

const rowOf = (userId: string) => findEngine(house.ctx.db, { productId: house.productId, userId });
const callsOf = ({ runtime }: House = house) => runtime.calls.map(({ call }) => call);

/** Acts once, in the middle of the first such call. */
function during(call: CallReport["call"], when: CallReport["when"], act: () => Promise<void> | void): void {
  house.runtime.onCall = async (report) => {
    if (report.call !== call || report.when !== when) return;
    house.runtime.onCall = undefined;
    await act();
  };
}

/** Writes as another operation, or another replica, would. */
async function overwrite(userId: string, patch: EnginePatch): Promise<void> {
  const row = await rowOf(userId);
  await updateEngineIf(house.ctx.db, { id: row?.id ?? "" }, patch);
}

test("a first boot checks that the daemon is ours, and observes the container before and after its start", async () => {
  await provisionEngine(house.ctx, toCall(house, "ada"));
  const steps = [
    "findImage",
    "check",
    ...OBSERVE_NONE,
    "ensure",
    "observe",
    "check",
    "start",
    "observe",
    "check",
  ];
  expect(callsOf()).toEqual(steps);
});

test("a stop that a caller requests while the container is created prevents its start", async () => {
  during("ensure", "after", () => overwrite("bea", { desired: "stopped" }));
  const { engine } = await provisionEngine(house.ctx, toCall(house, "bea"));
  expect(engine).toMatchObject({ status: "stopped" });
  expect(callsOf()).not.toContain("start");
});

test("a replica that lost its lease while the container was created does not start it", async () => {
  during("ensure", "after", () => overwrite("cyd", { fencingToken: 1_000 }));
  const { engine } = await provisionEngine(house.ctx, { ...toCall(house, "cyd") });
  expect(engine.status).toBe("provisioning");
  expect(callsOf()).not.toContain("start");
});

test("an adopted container is observed before any other call addresses it", async () => {
  house.runtime.failNext("ensure", "unreachable", { completed: true });
  await provisionEngine(house.ctx, toCall(house, "dan"));
  await house.ctx.reconciler.reconcile((await rowOf("dan"))?.id ?? "");
  expect(await rowOf("dan")).toMatchObject({ status: "running" });
  expect(callsOf().filter((call) => call === "ensure")).toHaveLength(1);
});

test("a runtime event after the last observation causes another one, and the caller does not wait for it", async () => {
  let observations = 0;
  house.runtime.onCall = async ({ call, when }) => {
    if (call !== "observe" || when !== "after" || !callsOf().includes("start")) return;
    observations += 1;
    const row = await rowOf("eli");
    // This observation finds the process. It is over, but its result is not recorded yet.
    if (observations === 1 && row !== undefined) house.ctx.reconciler.onRuntimeEvent(row.id);
  };
  const { engine } = await provisionEngine(house.ctx, toCall(house, "eli"));
  expect(engine).toMatchObject({ status: "running", generation: 1 });
  await expect.poll(() => observations).toBe(2);
});

test("a process is recorded as ready only when it answered itself, not when the process before it did", async () => {
  /** The number of probes that each process answered, in the order of their starts. */
  const answers: number[] = [];
  const daemon = new MemoryDaemon({
    handler: (container, environment) => {
      const answer = answerAsEngine(container, environment);
      const index = answers.push(0) - 1;
      return (request, response) => {
        const count = (answers[index] ?? 0) + 1;
        answers[index] = count;
        // Only the first probe fails, so that the second belongs to the wait for the boot.
        if (index === 0 && count === 1) response.writeHead(503).end();
        else answer(request, response);
      };
    },
  });
  await using slow = await openSite({ config, daemon });
  await using other = await openHouse(slow);
  other.runtime.onCall = async ({ call, when, input }) => {
    // After the first process was observed and has answered, and before the next observation.
    if (call !== "observe" || when !== "before" || answers.length !== 1 || answers[0] !== 2) return;
    await other.runtime.restart(String(input));
  };
  const { engine } = await provisionEngine(other.ctx, toCall(other, "fay"));
  const [container] = await other.runtime.observe(engine.engineId);
  const row = await findEngineById(other.ctx.db, engine.engineId);
  expect(row).toMatchObject({ status: "running", generation: 1 });
  expect(row?.processIdentity).toBe(container?.processIdentity);
  expect(row?.endpoint).toBe(container?.endpoint);
  expect(answers, "the second process was probed itself").toEqual([2, expect.any(Number)]);
  expect(answers[1]).toBeGreaterThan(0);
});

test("reconcile pulls a missing image, and creates the container right after", async () => {
  const images = new Set<string>();
  const daemon = new MemoryDaemon({ images });
  await using bare = await openSite({ config, daemon });
  await using other = await openHouse(bare);
  other.runtime.onCall = ({ call, when }) => {
    if (call === "findImage" && when === "after") images.add(toDefaultImage(bare.config));
  };
  const { engine } = await provisionEngine(other.ctx, toCall(other, "gus"));
  expect(engine).toMatchObject({ status: "running", imageId: toDefaultImage(bare.config) });
  const pull = ["findImage", "check", ...OBSERVE_NONE, "resolveImage"];
  const boot = [...OBSERVE_NONE, "ensure", "observe", "check", "start", "observe", "check"];
  expect(callsOf(other)).toEqual([...pull, ...boot]);
});
