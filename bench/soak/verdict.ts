import { median } from "../statistics.ts";
import type { Sent } from "./read-sent.ts";
import type { Tally } from "./tally.ts";

export interface ReadTurn {
  taskId: string;
  /** Of all its readers. */
  tallies: readonly Tally[];
}

/** Of the service's process, after a garbage collection. */
export interface Footprint {
  heapBytes: number;
  descriptors: number;
}

export interface SoakResult {
  turns: readonly ReadTurn[];
  /** By task. */
  sent: ReadonlyMap<string, Sent>;
  /** The engines number their events, so every turn must complete. */
  isNumbered: boolean;
  cuts: number;
  kills: number;
  /** Of the last process of the service, in order. */
  footprints: readonly Footprint[];
  seconds: number;
}

export interface Verdict {
  /** Name and value of each row of the table. */
  rows: [name: string, value: string | number][];
  violations: string[];
}

const HEAP_GROWTH_MAX = 1.2;
const HEAP_SLACK_BYTES = 8 * 1024 * 1024;
const DESCRIPTORS_GROWTH_MAX = 1.1;
const DESCRIPTORS_SLACK = 20;
/** Ends of turns whose owner died, which an engine without numbered events cannot prevent. */
const LOST_ENDS: readonly string[] = ["interrupted (OWNER_LOST)", "failed (OUTCOME_UNKNOWN)"];
/** The service died before the engine had the turn. It is not sent again, because that could start it twice. */
const NEVER_SENT = "failed (OUTCOME_UNKNOWN)";

/** Compares what the readers got with what the engines sent. */
export function judge(result: SoakResult): Verdict {
  const counts = { sent: 0, delivered: 0, lost: 0, doubled: 0, changed: 0, startedTwice: 0, troubles: 0 };
  const ends = new Map<string, number>();
  const wrongEnds = new Set<string>();
  const troubles: string[] = [];
  for (const { taskId, tallies } of result.turns) {
    const { digests, starts } = result.sent.get(taskId) ?? { digests: [], starts: 0 };
    if (starts > 1) counts.startedTwice += 1;
    for (const tally of tallies) {
      const end = tally.ends.join(" and ") || "none";
      ends.set(end, (ends.get(end) ?? 0) + 1);
      const isCutShort = isAllowed(end, result.isNumbered, starts);
      if (!isCutShort && end !== "completed") wrongEnds.add(end);
      if (tally.trouble !== undefined) troubles.push(tally.trouble);
      const missing = Math.max(0, digests.length - tally.digests.length);
      counts.sent += digests.length - (isCutShort ? missing : 0);
      counts.delivered += tally.digests.length;
      counts.lost += Math.max(tally.lost, isCutShort ? 0 : missing);
      counts.doubled += tally.doubled + Math.max(0, tally.digests.length - digests.length);
      counts.changed += tally.digests.filter((digest, index) => digest !== digests[index]).length;
    }
  }
  const heap = toThirds(result.footprints.map(({ heapBytes }) => heapBytes));
  const descriptors = toThirds(result.footprints.map((one) => one.descriptors));
  const violations = [
    ...["lost", "doubled", "changed"].flatMap((name) =>
      toViolation(name, counts[name as "lost"], "events were"),
    ),
    ...toViolation("started twice", counts.startedTwice, "turns were"),
    ...[...wrongEnds].map((end) => `${ends.get(end)} readers got the end: ${end}`),
    ...(troubles.length > 0 ? [`${troubles.length} readers gave up, the first one: ${troubles[0]}`] : []),
    ...(heap.last > heap.first * HEAP_GROWTH_MAX + HEAP_SLACK_BYTES ? ["the heap has grown"] : []),
    ...(descriptors.last > descriptors.first * DESCRIPTORS_GROWTH_MAX + DESCRIPTORS_SLACK
      ? ["the number of descriptors has grown"]
      : []),
    ...(result.turns.length === 0 ? ["no turn was read"] : []),
    ...(Number.isNaN(heap.first) ? ["the memory was measured less than three times"] : []),
  ];
  return {
    rows: [
      ["seconds", result.seconds],
      ["turns", result.turns.length],
      ["readers", result.turns.reduce((sum, { tallies }) => sum + tallies.length, 0)],
      ["kills of the service", result.kills],
      ["cuts of connections", result.cuts],
      ["events that the readers' turns sent", counts.sent],
      ["events delivered", counts.delivered],
      ["lost", counts.lost],
      ["doubled", counts.doubled],
      ["changed", counts.changed],
      ["turns started twice", counts.startedTwice],
      ...[...ends].map(([end, count]): [string, number] => [`readers with the end: ${end}`, count]),
      ["heap of the last process, first third, last third", `${toMb(heap.first)}, ${toMb(heap.last)}`],
      ["descriptors, first third, last third", `${descriptors.first}, ${descriptors.last}`],
    ],
    violations,
  };
}

const toMb = (bytes: number) => `${(bytes / 2 ** 20).toFixed(1)} MB`;

function isAllowed(end: string, isNumbered: boolean, starts: number): boolean {
  return (end === NEVER_SENT && starts === 0) || (!isNumbered && LOST_ENDS.includes(end));
}

function toViolation(name: string, count: number, what: string): string[] {
  return count > 0 ? [`${count} ${what} ${name}`] : [];
}

/** Medians of the first and the last third. */
function toThirds(values: readonly number[]): { first: number; last: number } {
  const third = Math.floor(values.length / 3);
  if (third === 0) return { first: Number.NaN, last: Number.NaN };
  return { first: median(values.slice(0, third)), last: median(values.slice(-third)) };
}
