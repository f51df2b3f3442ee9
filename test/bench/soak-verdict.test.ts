import { expect, test } from "vitest";
import { Tally } from "../../bench/soak/tally.ts";
import { judge, type Footprint, type SoakResult } from "../../bench/soak/verdict.ts";

const EVENTS = 5;
const text = (seq: number) => ({ text: `word ${seq}` });
const COMPLETED = { status: "completed", reason: null };
const OWNER_LOST = { status: "interrupted", reason: "OWNER_LOST" };
const MB = 1024 * 1024;

/** What the engine sent of a task, in which a turn started so often. */
function toSent(starts = 1) {
  const tally = new Tally();
  for (let seq = 1; seq <= EVENTS; seq += 1) tally.event(seq, "text_delta", text(seq));
  return { digests: tally.digests, starts };
}

/** A reader that got these events and these ends. */
function read(
  seqs: readonly number[],
  ends: readonly { status: string; reason: string | null }[] = [COMPLETED],
) {
  const tally = new Tally();
  for (const seq of seqs) tally.event(seq, "text_delta", text(seq));
  for (const end of ends) tally.end(end);
  return tally;
}

const whole = () => read([1, 2, 3, 4, 5]);
const footprint = (heapMb: number, descriptors = 100): Footprint => ({ heapBytes: heapMb * MB, descriptors });
const FLAT = [50, 51, 50, 52, 51, 52].map((heapMb) => footprint(heapMb));

function violationsOf(tally: Tally, more: Partial<SoakResult> = {}): string[] {
  return judge({
    turns: [{ taskId: "t", tallies: [tally] }],
    sent: new Map([["t", toSent()]]),
    isNumbered: true,
    cuts: 1,
    kills: 1,
    footprints: FLAT,
    seconds: 60,
    ...more,
  }).violations;
}

test("a reader with each event once, in order, and one end is no violation", () => {
  expect(violationsOf(read([1, 2, 3, 4, 5]))).toEqual([]);
});

test("an event that is missing at the end or in the middle is lost", () => {
  expect(violationsOf(read([1, 2, 3, 4]))).toEqual(["1 events were lost"]);
  expect(violationsOf(read([1, 2, 4, 5]))).toContain("1 events were lost");
});

test("an event that comes twice, or after the end, is doubled", () => {
  expect(violationsOf(read([1, 2, 3, 3, 4, 5]))).toEqual(["1 events were doubled"]);
  const late = read([1, 2, 3, 4, 5]);
  late.event(6, "text_delta", text(6));
  expect(violationsOf(late)).toEqual(["1 events were doubled"]);
});

test("an event with other data than the engine's is changed", () => {
  const tally = new Tally();
  for (const seq of [1, 2, 3, 4, 5]) tally.event(seq, "text_delta", text(seq === 3 ? 0 : seq));
  tally.end(COMPLETED);
  expect(violationsOf(tally)).toEqual(["1 events were changed"]);
});

test("no end, two ends, and a reader that gave up are violations", () => {
  const all = [1, 2, 3, 4, 5];
  expect(violationsOf(read(all, []))).toEqual(["1 readers got the end: none"]);
  expect(violationsOf(read(all, [COMPLETED, COMPLETED]))).toEqual([
    "1 readers got the end: completed and completed",
  ]);
  const tally = read(all);
  tally.trouble = "409";
  expect(violationsOf(tally)).toEqual(["1 readers gave up, the first one: 409"]);
});

test("a turn that loses its owner may end early only if its engine does not number its events", () => {
  const cut = read([1, 2], [OWNER_LOST]);
  expect(violationsOf(cut, { isNumbered: false })).toEqual([]);
  expect(violationsOf(cut)).toEqual([
    "3 events were lost",
    "1 readers got the end: interrupted (OWNER_LOST)",
  ]);
});

test("a turn that no engine got may end unknown, and a turn that two engines got is a violation", () => {
  const unknown = read([], [{ status: "failed", reason: "OUTCOME_UNKNOWN" }]);
  expect(violationsOf(unknown, { sent: new Map() })).toEqual([]);
  const twice = new Map([["t", toSent(2)]]);
  expect(violationsOf(read([1, 2, 3, 4, 5]), { sent: twice })).toEqual(["1 turns were started twice"]);
});

test("a heap or a number of descriptors that grows, and too few measures of them, are violations", () => {
  const growing = (last: Footprint) => [...FLAT.slice(0, 4), last, last];
  expect(violationsOf(whole(), { footprints: growing(footprint(80)) })).toEqual(["the heap has grown"]);
  expect(violationsOf(whole(), { footprints: growing(footprint(50, 200)) })).toEqual([
    "the number of descriptors has grown",
  ]);
  expect(violationsOf(whole(), { footprints: FLAT.slice(0, 2) })).toEqual([
    "the memory was measured less than three times",
  ]);
});
