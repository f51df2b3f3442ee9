import { expect, test } from "vitest";
import { EngineHolds } from "../../../server/engines/access/engine-holds.ts";

const never = () => new AbortController().signal;
const call = (method = "m") => ({ holder: { toHoldView: () => ({ kind: "call", method }) as const } });

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
