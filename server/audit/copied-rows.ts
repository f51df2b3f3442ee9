import { AUDIT_LOG_COLUMNS, type AuditLogRow } from "../../db/audit-log.ts";

/** The place of each column in a line. */
export type ColumnPlaces = Readonly<Record<(typeof AUDIT_LOG_COLUMNS)[number], number>>;

const ESCAPES: Readonly<Record<string, string>> = { b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v" };

/** Splits the text format of COPY into lines. A line has no line break within, because COPY escapes it. */
export async function* toCopyLines(chunks: AsyncIterable<Buffer>): AsyncGenerator<string[]> {
  let rest: Buffer = Buffer.alloc(0);
  for await (const chunk of chunks) {
    const end = chunk.lastIndexOf(0x0a);
    if (end < 0) {
      rest = Buffer.concat([rest, chunk]);
      continue;
    }
    const whole = rest.length === 0 ? chunk.subarray(0, end) : Buffer.concat([rest, chunk.subarray(0, end)]);
    rest = chunk.subarray(end + 1);
    yield whole.toString("utf8").split("\n");
  }
  if (rest.length > 0) yield [rest.toString("utf8")];
}

/** The fields of a line. null is `\N`. */
export function toCopyFields(line: string): (string | null)[] {
  const fields: (string | null)[] = line.split("\t");
  for (const [place, field] of line.includes("\\") ? fields.entries() : []) {
    if (field?.includes("\\") === true) fields[place] = toCopiedValue(field);
  }
  return fields;
}

function toCopiedValue(field: string): string | null {
  if (field === "\\N") return null;
  return field.replace(/\\(.)/gs, (_all, one: string) => ESCAPES[one] ?? one);
}

/** undefined: a column is missing. */
export function toColumnPlaces(columns: readonly string[]): ColumnPlaces | undefined {
  const places = AUDIT_LOG_COLUMNS.map((column) => [column, columns.indexOf(column)] as const);
  return places.some(([, place]) => place < 0) ? undefined : (Object.fromEntries(places) as ColumnPlaces);
}

export const OWN_PLACES = toColumnPlaces(AUDIT_LOG_COLUMNS) as ColumnPlaces;

/** Returns the row of a line, in the form that its hash covers. */
export function toAuditLogRow(line: string, places: ColumnPlaces): AuditLogRow {
  const fields = toCopyFields(line);
  const text = (column: keyof ColumnPlaces) => fields[places[column]] ?? "";
  const duration = fields[places.duration_ms];
  return {
    scope: text("scope"),
    seq: Number(text("seq")),
    at: toMicroseconds(text("at")),
    actor: text("actor"),
    action: text("action"),
    userId: fields[places.user_id] ?? null,
    engineId: fields[places.engine_id] ?? null,
    requestId: fields[places.request_id] ?? null,
    metadata: text("metadata"),
    durationMs: duration === null || duration === undefined ? null : Number(duration),
    prevHash: text("prev_hash"),
    hash: text("hash"),
  };
}

const TIMESTAMP = /^(\d{4,}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d{1,6}))?([+-]\d\d(?::\d\d){0,2})$/;

/** A timestamp as Postgres writes it, in any time zone, as UTC text with six digits. Other text stays as it is. */
export function toMicroseconds(timestamp: string): string {
  const [, day, time, fraction = "", zone] = TIMESTAMP.exec(timestamp) ?? [];
  if (day === undefined || time === undefined || zone === undefined) return timestamp;
  const digits = fraction.padEnd(6, "0");
  if (zone === "+00") return `${day}T${time}.${digits}Z`;
  const [hours = "0", minutes = "0", seconds = "0"] = zone.slice(1).split(":");
  const offsetS = Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds);
  const localMs = Date.parse(`${day}T${time}Z`);
  const utc = new Date(localMs - (zone.startsWith("-") ? -1 : 1) * offsetS * 1_000);
  return Number.isNaN(utc.getTime()) ? timestamp : `${utc.toISOString().slice(0, 19)}.${digits}Z`;
}
