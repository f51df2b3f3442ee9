import { expect } from "vitest";
import type { NumberReader, Wire } from "./number-reader.ts";
import { openStageHouse, type StageHouse } from "./stages.ts";

/** More than the kernel takes for a connection whose reader takes nothing. */
const PREFIX = { events: 6_000, bytes: 1_000, perPiece: 20, intervalMs: 0 };
/** With the event of the lifecycle. */
const PREFIX_SEQ = 1 + PREFIX.events;
const PATIENCE = { timeout: 300_000, interval: 200 };
const HEAP_MB = 256;
/** Stalled readers that read on at the same time. */
const RESUMED_AT_ONCE = 20;
/** A quiet reader of tRPC costs half of this, and its share of the garbage the rest. */
const HEAP_PER_READER_BYTES = 96 * 1024;
const HEAP_SLACK_BYTES = 24 * 1024 * 1024;

interface Crowd {
  readers: number;
  stalled: number;
  /** The events that come while all readers are there. */
  events: number;
}

const wireOf = (index: number): Wire => (index % 2 === 0 ? "tRPC" : "raw");

/**
 * One busy turn with many readers on both wires, of which some take nothing. Expects that memory stays bounded, that
 * the others get each event once and in order, and that each stalled reader then does, too.
 */
export async function crowdTurn({ readers, stalled, events }: Crowd): Promise<void> {
  await using house = await openStageHouse({ heapMb: HEAP_MB });
  const turnId = await house.start([PREFIX, { events, bytes: 50, perPiece: 2, intervalMs: 40 }]);
  await expect.poll(() => house.lastSeq(turnId), PATIENCE).toBe(PREFIX_SEQ);
  const total = PREFIX_SEQ + events;
  const quiet = await house.inspector.measure();

  const stalling = Array.from({ length: stalled }, (_, index) => house.read(turnId, wireOf(index)));
  await expectOpened(stalling);
  const flowing = Array.from({ length: readers - stalled }, (_, index) =>
    house.read(turnId, wireOf(index), PREFIX_SEQ),
  );
  for (const reader of flowing) reader.flow();
  await expectOpened(flowing);

  await house.next();
  await expect.poll(() => flowing.at(-1)?.lastSeq, PATIENCE).toBeGreaterThan(PREFIX_SEQ + events / 2);
  const { heapBytes } = await house.inspector.measure();
  expect(heapBytes - quiet.heapBytes).toBeLessThan(HEAP_SLACK_BYTES + readers * HEAP_PER_READER_BYTES);
  await expect.poll(() => flowing.every(({ isClosed }) => isClosed), PATIENCE).toBe(true);
  for (const reader of flowing) expectWhole(reader, total);

  const resume = stalling.values();
  const work = async () => {
    for (const reader of resume) expectWhole(await readToEnd(house, turnId, reader), total);
  };
  await Promise.all(Array.from({ length: RESUMED_AT_ONCE }, work));
}

async function expectOpened(readers: readonly NumberReader[]): Promise<void> {
  const statuses = await Promise.all(readers.map(({ opened }) => opened));
  expect(statuses.filter((status) => status !== 200)).toEqual([]);
}

function expectWhole({ trouble, lastSeq, end }: NumberReader, total: number): void {
  expect({ trouble, lastSeq, end }).toEqual({ trouble: undefined, lastSeq: total, end: "completed" });
}

/** The service cuts a reader that has taken nothing for a minute. Then the reader comes back with its cursor. */
async function readToEnd(house: StageHouse, turnId: string, stalled: NumberReader): Promise<NumberReader> {
  expect(stalled.lastSeq).toBe(1);
  stalled.flow();
  await expect.poll(() => stalled.isClosed, PATIENCE).toBe(true);
  if (stalled.end !== undefined) return stalled;
  expect(stalled.trouble).toBeUndefined();
  const resumed = house.read(turnId, "raw", stalled.lastSeq);
  resumed.flow();
  await expect.poll(() => resumed.isClosed, PATIENCE).toBe(true);
  return resumed;
}
