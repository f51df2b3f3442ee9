import type { CpuReading } from "./cpu-meter.ts";
import { median } from "./statistics.ts";

/** The bound that a measure must meet; `none` is for information only. */
export type Bound =
  /** ours ÷ baseline */
  | { kind: "ratio_at_most" | "ratio_at_least"; times: number }
  /** baseline ÷ ours */
  | { kind: "cheaper_at_least"; times: number }
  /** ours − baseline */
  | { kind: "added_at_most"; amount: number }
  | { kind: "at_least" | "at_most"; amount: number }
  | { kind: "none" };

export interface Measure {
  measure: string;
  unit: string;
  /** Medians over the rounds. */
  ours: number;
  baseline: number | null;
  /** Names the baseline. */
  against: string;
  bound: Bound;
  /** Compared with the bound: the median of the figures of all rounds, because each round has its own noise. */
  figure: number;
  ok: boolean;
  /** CPU microseconds of the service and of Postgres per unit of work, which `per` names. */
  cpu: { per: string; orchestratorUs: number; postgresUs: number } | null;
  rounds: { ours: readonly number[]; baseline: readonly number[] };
}

export interface MeasureInput extends Pick<Measure, "measure" | "unit" | "against" | "bound"> {
  /** One value per round. Values of `ours` and `baseline` with the same index were measured right after each other. */
  ours: readonly number[];
  baseline?: readonly number[];
  cpu?: Measure["cpu"];
}

export function toMeasure({ ours, baseline = [], cpu = null, ...about }: MeasureInput): Measure {
  const figure = median(ours.map((value, round) => toFigure(about.bound, value, baseline[round])));
  return {
    ...about,
    ours: median(ours),
    baseline: baseline.length === 0 ? null : median(baseline),
    figure,
    ok: isReached(about.bound, figure),
    cpu,
    rounds: { ours, baseline },
  };
}

/** Converts the CPU milliseconds of rounds of `count` units of work into microseconds per unit. */
export function toCpuPer(per: string, count: number, rounds: readonly CpuReading[]): Measure["cpu"] {
  const toUs = (ms: number[]) => (median(ms) * 1_000) / count;
  return {
    per,
    orchestratorUs: toUs(rounds.map(({ program }) => program)),
    postgresUs: toUs(rounds.map(({ postgres }) => postgres)),
  };
}

function toFigure(bound: Bound, ours: number, baseline: number | undefined): number {
  switch (bound.kind) {
    case "at_least":
    case "at_most":
      return ours;
    case "ratio_at_most":
    case "ratio_at_least":
    case "none":
      return ours / (baseline ?? Number.NaN);
    case "cheaper_at_least":
      return (baseline ?? Number.NaN) / ours;
    case "added_at_most":
      return ours - (baseline ?? Number.NaN);
  }
}

function isReached(bound: Bound, figure: number): boolean {
  switch (bound.kind) {
    case "ratio_at_most":
      return figure <= bound.times;
    case "ratio_at_least":
    case "cheaper_at_least":
      return figure >= bound.times;
    case "added_at_most":
    case "at_most":
      return figure <= bound.amount;
    case "at_least":
      return figure >= bound.amount;
    case "none":
      return true;
  }
}
