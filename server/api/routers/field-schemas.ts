import { z } from "zod";
import { isDeeperThan } from "../../json/json-depth.ts";

/** Schemas of the fields that several procedures share. */

const JSON_MAX_DEPTH = 64;
const CONTROL_CHARACTERS = /\p{Cc}/u;

/** Text that is safe for Postgres and for a log line: well-formed, without control characters. */
export function plainText(maxLength: number) {
  return z
    .string()
    .min(1)
    .max(maxLength)
    .refine((text) => text.isWellFormed() && !CONTROL_CHARACTERS.test(text), {
      error: "must be well-formed text without control characters",
    });
}

export const UserId = plainText(128)
  .refine((id) => id !== "." && id !== "..", { error: "must not be . or .." })
  .describe(
    "The product's own id of a user: well-formed text without control characters, not `.` or `..`. A user of a product has at most one engine.",
  );

/** The name of a product or a key. */
export const Name = plainText(200);

export const Slug = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, {
  error: "must be 1 to 63 lower-case letters, digits and inner hyphens",
});

/** The caller's name for one call. A repeated call with the same key has its effect once. */
export const IdempotencyKey = plainText(128)
  .optional()
  .describe(
    "Your name for this call. Repeat the call with the same key and the same input: it has its effect once, and you get the stored reply. A key counts for 24 hours, in your product. Without a key, do not repeat a call whose connection broke.",
  );

export const DeadlineMs = z.int().min(1).max(3_600_000);
export const TimeoutMs = z.int().min(1).max(600_000);
export const Generation = z.int().min(1).max(2_147_483_647);
export const ExpectGeneration = Generation.optional().describe(
  "Refuse the call with GENERATION_CHANGED if the engine is of another generation, which means that it has lost its memory. Without it, any generation is accepted.",
);
export const WhenBusySchema = z.enum(["wait", "interrupt", "reject"]);
export const Cursor = plainText(1_000)
  .optional()
  .describe("`nextCursor` of the page before. Without it, the list begins.");
export const Limit = z.int().min(1).max(1_000).default(100).describe("How many items the page has at most.");
/** A page of a list. */
export function pageOf<Item extends z.ZodType>(item: Item) {
  return z.object({
    items: z.array(item).describe("The items of this page."),
    nextCursor: z
      .string()
      .nullable()
      .describe("Send it as `cursor` for the next page. null: this is the last page."),
  });
}
export const Seq = z.int().min(0);
/** ISO 8601 with an offset. In UTC its year has four digits, because Postgres refuses others. */
export const Instant = z.iso.datetime({ offset: true, abort: true }).refine(
  (text) => {
    const year = new Date(text).getUTCFullYear();
    return year >= 1 && year <= 9999;
  },
  { error: "must be in the years 1 to 9999" },
);

/** Any object. A field `__proto__` is refused, because copies of the object would silently lose it. */
export function plainObject<Fields extends object>() {
  return z
    .custom<Fields>((value) => typeof value === "object" && value !== null && !Array.isArray(value), {
      error: "must be an object",
    })
    .refine((value) => !Object.hasOwn(value, "__proto__"), { error: "must not have a field __proto__" })
    .meta({ type: "object" });
}

/** Any JSON object that `JSON.stringify` can write. Its text may be anything, because only an engine reads it. */
export const JsonObject = plainObject<Record<string, unknown>>().refine(
  (value) => !isDeeperThan(value, JSON_MAX_DEPTH),
  { error: `must not nest deeper than ${JSON_MAX_DEPTH} levels` },
);

/** Any JSON array. A copy would not have the source text of its numbers, so this makes none. */
export const JsonArray = z
  .custom<readonly unknown[]>((value) => Array.isArray(value), { error: "must be an array" })
  .refine((value) => !isDeeperThan(value, JSON_MAX_DEPTH), {
    error: `must not nest deeper than ${JSON_MAX_DEPTH} levels`,
  })
  .meta({ type: "array", items: {} });

/** A UUID in lower case, so that equal UUIDs are equal texts, as they are equal in Postgres. */
export const Uuid = z.guid({ error: "must be a UUID" }).toLowerCase();
