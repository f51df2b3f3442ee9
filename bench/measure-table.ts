import type { Bound, Measure } from "./measure.ts";

const HEADINGS = [
  "measure",
  "ours",
  "baseline",
  "against",
  "ratio",
  "bound",
  "ok",
  "service CPU",
  "Postgres CPU",
];

/** Formats the measures as a text table. */
export function toTable(measures: readonly Measure[]): string {
  const rows = [HEADINGS, ...measures.map(toRow)];
  const widths = HEADINGS.map((_heading, column) =>
    Math.max(...rows.map((row) => (row[column] ?? "").length)),
  );
  const lines = rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  lines.splice(1, 0, widths.map((width) => "─".repeat(width)).join("  "));
  return lines.join("\n");
}

function toRow(measure: Measure): string[] {
  const { unit, bound, cpu } = measure;
  const withUnit = (value: number) => `${toText(value)} ${unit}`;
  return [
    measure.measure,
    withUnit(measure.ours),
    measure.baseline === null ? "" : withUnit(measure.baseline),
    measure.against,
    toFigureText(measure),
    toBoundText(bound, unit),
    bound.kind === "none" ? "" : measure.ok ? "ok" : "MISSED",
    cpu === null ? "" : `${toText(cpu.orchestratorUs)} µs/${cpu.per}`,
    cpu === null ? "" : `${toText(cpu.postgresUs)} µs/${cpu.per}`,
  ];
}

function toFigureText({ bound, figure, unit }: Measure): string {
  switch (bound.kind) {
    case "ratio_at_most":
    case "ratio_at_least":
      return `${toText(figure)} ×`;
    case "cheaper_at_least":
      return `${toText(figure)} × cheaper`;
    case "added_at_most":
      return `+${toText(figure)} ${unit}`;
    case "at_least":
    case "at_most":
      return "";
    case "none":
      return Number.isNaN(figure) ? "" : `${toText(figure)} ×`;
  }
}

function toBoundText(bound: Bound, unit: string): string {
  switch (bound.kind) {
    case "ratio_at_most":
      return `≤ ${bound.times} ×`;
    case "ratio_at_least":
      return `≥ ${bound.times} ×`;
    case "cheaper_at_least":
      return `≥ ${bound.times} × cheaper`;
    case "added_at_most":
      return `≤ +${bound.amount} ${unit}`;
    case "at_least":
      return `≥ ${bound.amount} ${unit}`;
    case "at_most":
      return `≤ ${bound.amount} ${unit}`;
    case "none":
      return "";
  }
}

/** Rounds to about three significant digits. */
function toText(value: number): string {
  if (Math.abs(value) >= 100) return value.toFixed(0);
  return value.toFixed(Math.abs(value) >= 10 ? 1 : 2);
}
