import { expect, test } from "vitest";
import { BodyBudget, type HeldBytes } from "../../../server/api/http/body-budget.ts";
import { LargeBodies } from "../../../server/api/http/large-bodies.ts";

const MIB = 1024 * 1024;

function take(budget: BodyBudget, caller: string, bytes: number): HeldBytes {
  const held = budget.hold(caller, bytes);
  const refused = typeof held === "string" ? held : held.grow(bytes);
  if (typeof held === "string" || refused !== undefined) throw new Error(`refused by ${refused}`);
  return held;
}

test("a caller holds a quarter of all bytes, and of that three quarters in bodies that are not small", () => {
  const budget = new BodyBudget(128 * MIB);
  const first = take(budget, "a", 8 * MIB);
  take(budget, "a", 8 * MIB);
  take(budget, "a", 8 * MIB);
  expect(budget.hold("a", 8 * MIB)).toBe("caller");
  take(budget, "a", 64 * 1024).release();
  take(budget, "b", 8 * MIB);
  first.release();
  first.release();
  take(budget, "a", 8 * MIB);
});

test("all callers together hold no more than the total, and small bodies have a quarter of it", () => {
  const budget = new BodyBudget(32 * MIB);
  for (const caller of ["a", "b", "c"]) take(budget, caller, 8 * MIB);
  const last = budget.hold("d", 8 * MIB);
  expect(typeof last === "object" && last.grow(1)).toBe("total");
  take(budget, "d", 64 * 1024);
});

test("a body that grows is refused where a body of that size would be, and keeps what it has", () => {
  const budget = new BodyBudget(32 * MIB);
  const held = take(budget, "a", 64 * 1024);
  expect(held.grow(12 * MIB)).toBe(undefined);
  expect(held.grow(13 * MIB)).toBe("caller");
  expect(budget.usedBytes).toBe(12 * MIB);
  held.release();
  expect(budget.usedBytes).toBe(0);
});

test("a large body takes room of others only as it arrives, and its caller's own room from the start", () => {
  const budget = new BodyBudget(32 * MIB);
  for (const caller of ["a", "b", "c", "d"]) {
    const held = budget.hold(caller, 8 * MIB);
    expect(typeof held === "object" && held.grow(1)).toBe(undefined);
    expect(budget.hold(caller, 8 * MIB)).toBe("caller");
  }
  expect(budget.usedBytes).toBe(4 * 64 * 1024);
  take(budget, "e", 8 * MIB).release();
  expect(budget.usedBytes).toBe(4 * 64 * 1024);
});

test("large bodies are worked on one at a time, and callers take turns", async () => {
  const bodies = new LargeBodies();
  const order: string[] = [];
  let atWork = 0;
  const work = async (caller: string, name: string) => {
    await bodies.enter(caller, new AbortController().signal);
    atWork += 1;
    expect(atWork).toBe(1);
    order.push(name);
    // The turn ends three iterations of the event loop later.
    await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
    atWork -= 1;
  };
  const names = ["a1", "a2", "a3", "a4", "b1", "b2", "c1"];
  await Promise.all(names.map(async (name) => work(name.slice(0, 1), name)));
  expect(order).toEqual(["a1", "a2", "b1", "c1", "a3", "b2", "a4"]);
});

test("a large body whose sender leaves is not waited for", async () => {
  const bodies = new LargeBodies();
  const stays = new AbortController();
  const leaves = new AbortController();
  await bodies.enter("a", stays.signal);
  const left = bodies.enter("b", leaves.signal);
  const next = bodies.enter("c", stays.signal);
  leaves.abort();
  await expect(left).rejects.toThrow("aborted");
  await next;
});
