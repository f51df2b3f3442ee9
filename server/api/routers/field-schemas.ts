import { z } from "zod";
import { isDeeperThan } from "../../json-depth.ts";

/** Schemas of the fields that several procedures share. */

const JSON_MAX_DEPTH = 64;
const CONTROL_CHARACTERS = /\p{Cc}/u;

/** Text that Postgres and a log line can hold: well-formed, and no control characters. */
export function plainText(maxLength: number) {
  return z
    .string()
    .min(1)
    .max(maxLength)
    .refine((text) => text.isWellFormed() && !CONTROL_CHARACTERS.test(text), {
      error: "must be well-formed text without control characters",
    });
}

export const UserId = plainText(128).refine((id) => id !== "." && id !== "..", {
  error: "must not be . or ..",
});

/** A name as an operator gives it to a product or a key. */
export const Name = plainText(200);

export const Slug = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, {
  error: "must be 1 to 63 lower-case letters, digits and inner hyphens",
});

/** Reused by a caller who repeats a call, so that it has its effect once. */
export const IdempotencyKey = plainText(128).optional();

export const DeadlineMs = z.int().min(1).max(3_600_000);
export const TimeoutMs = z.int().min(1).max(600_000);
export const Generation = z.int().min(1).max(2_147_483_647);
export const WhenBusySchema = z.enum(["wait", "interrupt", "reject"]);
export const Cursor = plainText(1_000).optional();
export const Limit = z.int().min(1).max(1_000).default(100);
export const Seq = z.int().min(0);
/** ISO 8601 with an offset, and in UTC of a year that has four digits, as Postgres and others want it. */
export const Instant = z.iso.datetime({ offset: true, abort: true }).refine(
  (text) => {
    const year = new Date(text).getUTCFullYear();
    return year >= 1 && year <= 9999;
  },
  { error: "must be of the years 1 to 9999" },
);

/** An object as its sender wrote it. Copies lose an own `__proto__` without a word, so that it is refused. */
export function plainObject<Fields extends object>() {
  return z
    .custom<Fields>((value) => typeof value === "object" && value !== null && !Array.isArray(value), {
      error: "must be an object",
    })
    .refine((value) => !Object.hasOwn(value, "__proto__"), { error: "must not have a field __proto__" });
}

/** Any JSON object that can be written again; it may hold text that only an engine understands. */
export const JsonObject = plainObject<Record<string, unknown>>().refine(
  (value) => !isDeeperThan(value, JSON_MAX_DEPTH),
  { error: `must not nest deeper than ${JSON_MAX_DEPTH} levels` },
);

/** In one spelling, so that two of them are equal when Postgres says so. */
export const Uuid = z.guid({ error: "must be a UUID" }).toLowerCase();
