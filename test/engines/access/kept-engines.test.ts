import { expect, test } from "vitest";
import type { UsableEngine } from "../../../db/engines.ts";
import { KeptEngines } from "../../../server/engines/access/kept-engines.ts";

const USER = { productId: "product", userId: "ada" };
const ENGINE: UsableEngine = {
  id: "engine",
  ...USER,
  status: "running",
  statusReason: null,
  desired: "running",
  generation: 1,
  endpoint: "http://127.0.0.1:9001",
  endpointMac: null,
  keySealed: "sealed",
  nextRestartAt: null,
};

function keep(kept: KeptEngines, engine: UsableEngine = ENGINE, mark = kept.mark): UsableEngine | undefined {
  kept.keep(USER, engine, { mark, nowMs: 0 });
  return kept.find(USER, 0);
}

test("a row of a running engine is kept for two seconds, for its user only", () => {
  const kept = new KeptEngines();
  expect(keep(kept)).toBe(ENGINE);
  expect(kept.find(USER, 1_999)).toBe(ENGINE);
  expect(kept.find(USER, 2_000)).toBeUndefined();
  expect(kept.find({ ...USER, userId: "bob" }, 0)).toBeUndefined();
  expect(kept.find({ ...USER, productId: "other" }, 0)).toBeUndefined();
});

test.each([{ status: "starting" }, { status: "failed" }, { desired: "stopped" }] as const)(
  "a row with %o is not kept",
  (change) => {
    expect(keep(new KeptEngines(), { ...ENGINE, ...change })).toBeUndefined();
  },
);

test("a change ends the row at once, and until its end no row is kept", () => {
  const kept = new KeptEngines();
  keep(kept);
  const first = kept.changing(ENGINE.id);
  expect(kept.find(USER, 0)).toBeUndefined();
  const second = kept.changing(ENGINE.id);
  first[Symbol.dispose]();
  expect(keep(kept)).toBeUndefined();
  second[Symbol.dispose]();
  expect(keep(kept)).toBe(ENGINE);
});

test("a row that was read before the end of a change is not kept", () => {
  const kept = new KeptEngines();
  const change = kept.changing(ENGINE.id);
  const { mark } = kept;
  change[Symbol.dispose]();
  expect(keep(kept, ENGINE, mark)).toBeUndefined();
});

test("a change of another engine leaves the row", () => {
  const kept = new KeptEngines();
  keep(kept);
  kept.changing("another")[Symbol.dispose]();
  expect(kept.find(USER, 0)).toBe(ENGINE);
  kept.forget("another");
  expect(kept.find(USER, 0)).toBe(ENGINE);
  kept.forget(ENGINE.id);
  expect(kept.find(USER, 0)).toBeUndefined();
});
