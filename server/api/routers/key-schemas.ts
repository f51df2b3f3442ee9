import { z } from "zod";
import { Key } from "../../keys/key-view.ts";
import { IdempotencyKey, Instant, Name, Uuid } from "./field-schemas.ts";

/** The fields that platform keys and operator keys have in common. */

const MAX_GRACE_SECONDS = 30 * 86_400;

export const issueFields = {
  name: Name.describe("By which people tell keys apart."),
  expiresAt: Instant.optional().describe(
    "The key is refused from this instant on, ISO 8601 with an offset. Without it, the key does not expire.",
  ),
  idempotencyKey: IdempotencyKey,
};

export const IssuedKey = z.object({
  key: Key.describe("The key's record."),
  apiKey: z.string().describe("The key in plain text. The service keeps only its hash: store it now."),
});

export const revokeFields = {
  keyId: Uuid.describe("The key to revoke."),
  graceSeconds: z
    .int()
    .min(0)
    .max(MAX_GRACE_SECONDS)
    .default(0)
    .describe("How long the key still works, in seconds, so that callers can change to another one."),
  idempotencyKey: IdempotencyKey,
};
