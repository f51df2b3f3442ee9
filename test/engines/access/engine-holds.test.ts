import { describe, expect, test } from "vitest";
import { EngineHolds } from "../../../server/engines/access/engine-holds.ts";
import { callHolder, describeHolds, type HoldView } from "../../../server/engines/access/hold-view.ts";

const never = () => new AbortController().signal;
const call = (method = "m") => ({ holder: callHolder(method) });

test("a closed gate keeps new holders out until it opens, and leaves other engines alone", async () => {
  const holds = new EngineHolds();
  const gate = await holds.closeGate("e", { whenBusy: "wait", deadlineMs: 1_000, reason: "ENGINE_STOPPED" });
  let entered = false;
  const entering = holds.acquire("e", never(), call()).then((hold) => {
    entered = true;
    return hold;
  });
  using other = await holds.acquire("another engine", never(), call());
  expect(other.interrupted.aborted).toBe(false);
  expect(entered).toBe(false);
  gate[Symbol.dispose]();
  (await entering).release();
  expect(entered).toBe(true);
  expect(holds.count("e")).toBe(0);
});

test("new holders wait until both of two gates are open", async () => {
  const holds = new EngineHolds();
  const options = { whenBusy: "wait", deadlineMs: 1_000, reason: "ENGINE_STOPPED" } as const;
  const gates = await Promise.all([holds.closeGate("e", options), holds.closeGate("e", options)]);
  const timeout = AbortSignal.timeout(50);
  gates[0][Symbol.dispose]();
  gates[0][Symbol.dispose]();
  await expect(holds.acquire("e", timeout, call())).rejects.toThrow(/timeout/);
  gates[1][Symbol.dispose]();
  (await holds.acquire("e", never(), call())).release();
});

test("a wait at the gate ends with the reason of the caller's signal", async () => {
  const holds = new EngineHolds();
  using _gate = await holds.closeGate("e", {
    whenBusy: "interrupt",
    deadlineMs: 0,
    reason: "ENGINE_STOPPED",
  });
  const leaving = new AbortController();
  const entering = holds.acquire("e", leaving.signal, call());
  leaving.abort(new Error("the caller left"));
  await expect(entering).rejects.toThrow("the caller left");
});

test("`wait` interrupts the holders at its deadline, or gives up if told so", async () => {
  const holds = new EngineHolds();
  const hold = await holds.acquire("e", never(), call());
  const options = { whenBusy: "wait", deadlineMs: 30, reason: "ENGINE_RESTARTED" } as const;
  await expect(holds.closeGate("e", { ...options, onDeadline: "give_up" })).rejects.toMatchObject({
    reason: "ENGINE_BUSY",
  });
  expect(hold.interrupted.aborted).toBe(false);
  hold.interrupted.addEventListener("abort", () => {
    hold.release();
  });
  using _gate = await holds.closeGate("e", options);
  expect(hold.interrupted.reason).toBe("ENGINE_RESTARTED");
});

test("a gate that could not be closed is open", async () => {
  const holds = new EngineHolds();
  const hold = await holds.acquire("e", never(), call());
  const refused = holds.closeGate("e", { whenBusy: "reject", deadlineMs: 0, reason: "ENGINE_STOPPED" });
  await expect(refused).rejects.toMatchObject({ reason: "ENGINE_BUSY" });
  (await holds.acquire("e", never(), call())).release();
  hold.release();
});

const turn = (more: object = {}) =>
  ({
    kind: "turn",
    turnId: "id-1",
    taskId: "t",
    status: "streaming",
    isWaitingForPerson: false,
    ...more,
  }) as const;
const holderOf = (view: HoldView) => ({ holder: { toHoldView: () => view } });

describe("who waits for the holders is told what they are", () => {
  test("ENGINE_BUSY names turns, calls and turns that have ended here, and says what to do", async () => {
    const holds = new EngineHolds();
    const hold = await holds.acquire("e", never(), holderOf(turn()));
    await holds.acquire("e", never(), holderOf(turn({ turnId: "id-2", isWaitingForPerson: true })));
    await holds.acquire("e", never(), call("skill.run"));
    await holds.acquire("another engine", never(), call("other"));
    hold.passTo({
      toHoldView: () => ({
        kind: "ended_turn",
        turnId: "id-1",
        taskId: "t",
        reason: "CANCELLED",
        until: "12:00",
      }),
    });
    const refused = holds.closeGate("e", { whenBusy: "reject", deadlineMs: 0, reason: "ENGINE_STOPPED" });
    await expect(refused).rejects.toMatchObject({
      reason: "ENGINE_BUSY",
      retryAfterMs: 1_000,
      message:
        "the engine is in use by 1 turn, 1 call, 1 turn that has ended here (" +
        'turn id-1 of task "t": ended here (CANCELLED), but its engine may still work on it, so it holds the engine until ' +
        '12:00 at the longest; turn id-2 of task "t": streaming, waiting for a person\'s answer; a call of skill.run): ' +
        'wait for their ends, cancel the turns, or interrupt all (whenBusy "interrupt", or when "now")',
    });
  });

  test("of many holds only some are shown, and long task ids are cut", () => {
    const views = Array.from({ length: 9 }, () => turn({ taskId: "x".repeat(500) }));
    const text = describeHolds(views);
    expect(text).toMatch(/^9 turns \(turn id-1 of task "x{80}…": streaming; .*; 4 more\)$/);
    expect(text.length).toBeLessThan(900);
  });

  test("a call that waits at the gate is told what the operation waits for", async () => {
    const holds = new EngineHolds();
    expect(holds.explainGate("e")).toBeUndefined();
    const hold = await holds.acquire("e", never(), call("skill.run"));
    const closing = holds.closeGate("e", { whenBusy: "wait", deadlineMs: 60_000, reason: "ENGINE_STOPPED" });
    expect(holds.explainGate("e")).toBe("an operation on it waits for 1 call (a call of skill.run)");
    hold.release();
    using _gate = await closing;
    expect(holds.explainGate("e")).toBe("an operation on it is under way");
  });
});
