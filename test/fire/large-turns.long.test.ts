import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import type { NumberReader, Wire } from "./number-reader.ts";
import { openStageHouse, type Stage } from "./stages.ts";

const MILLION = 1_000_000;
const HEAP_MB = 160;
const RSS_GROWTH_MAX_MB = 300;
const TURNS = 2_000;
const BUSY = 500;
const BUSY_EVENTS = 200;
const STARTS_AT_ONCE = 20;
const PATIENCE = { timeout: 600_000, interval: 200 };
const WIRES: readonly Wire[] = ["tRPC", "raw"];

async function readRssMb(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0) / 1024;
}

/** The warnings and errors in the log. */
function findProblems(output: string): string[] {
  return output.split("\n").filter((line) => /"level":"(?:error|warn)"/.test(line));
}

/** Waits until all readers have ended, and returns what is wrong with what they got. */
async function untilRead(readers: readonly { reader: NumberReader; events: number }[]): Promise<string[]> {
  const open = () => readers.filter(({ reader }) => !reader.isClosed).length;
  await expect.poll(open, PATIENCE).toBe(0);
  return readers.flatMap(({ reader: { trouble, lastSeq, end }, events }) =>
    trouble === undefined && lastSeq === events && end === "completed"
      ? []
      : [`${trouble ?? ""} ${lastSeq} of ${events} events, end ${end}`],
  );
}

test("a turn of a million events reaches its readers while it runs and after its end, in little memory", async () => {
  await using house = await openStageHouse({ heapMb: HEAP_MB });
  const quietRssMb = await readRssMb(house.service.pid);
  const flood: Stage = { events: MILLION - 2, bytes: 1, perPiece: 500, intervalMs: 0 };
  const first: Stage = { events: 1, bytes: 1, perPiece: 1, intervalMs: 0 };
  const turnId = await house.start([first, flood]);
  const readBoth = () =>
    WIRES.map((wire) => {
      const reader = house.read(turnId, wire);
      reader.flow();
      return { reader, events: MILLION };
    });
  const live = readBoth();
  await Promise.all(live.map(({ reader }) => reader.opened));
  await house.next();
  expect(await untilRead(live)).toEqual([]);
  expect(await untilRead(readBoth())).toEqual([]);
  expect((await readRssMb(house.service.pid)) - quietRssMb).toBeLessThan(RSS_GROWTH_MAX_MB);
  expect(findProblems(house.service.output())).toEqual([]);
}, 1_200_000);

test("of two thousand turns at once five hundred are busy, and each reader gets each event of its turn once", async () => {
  await using house = await openStageHouse({ heapMb: 2 * HEAP_MB });
  const one: Stage = { events: 1, bytes: 10, perPiece: 1, intervalMs: 0 };
  const busy: Stage = { events: BUSY_EVENTS, bytes: 10, perPiece: 1, intervalMs: 100 };
  const quiet = await house.inspector.measure();
  const opened: { reader: NumberReader; events: number }[] = [];
  const indexes = Array.from({ length: TURNS }, (_, index) => index).values();
  const open = async () => {
    for (const index of indexes) {
      const isBusy = index % (TURNS / BUSY) === 0;
      // A quiet turn waits until the busy ones have ended.
      const turnId = await house.start(isBusy ? [one, busy] : [one, { ...one, events: 0 }, one]);
      const reader = house.read(turnId, WIRES[index % WIRES.length] ?? "raw");
      reader.flow();
      opened.push({ reader, events: isBusy ? 2 + BUSY_EVENTS : 3 });
      await expect.poll(() => reader.lastSeq, PATIENCE).toBe(2);
    }
  };
  await Promise.all(Array.from({ length: STARTS_AT_ONCE }, open));
  await house.next();
  const busyReaders = opened.filter(({ events }) => events > 3);
  expect(busyReaders).toHaveLength(BUSY);
  expect(await untilRead(busyReaders)).toEqual([]);
  const { heapBytes } = await house.inspector.measure();
  // The turns that are left: a turn and its reader of tRPC cost less than this.
  expect((heapBytes - quiet.heapBytes) / (TURNS - BUSY)).toBeLessThan(100 * 1024);
  await house.next();
  expect(await untilRead(opened)).toEqual([]);
  expect(findProblems(house.service.output())).toEqual([]);
}, 1_200_000);
