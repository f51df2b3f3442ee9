import { z } from "zod";

const Instant = z.string().meta({ format: "date-time" });

/** The schema of an instant in replies, with its meaning. Replies write instants as ISO 8601 in UTC. */
export function instantText(meaning: string) {
  return Instant.describe(meaning);
}

export function instantTextOrNull(meaning: string) {
  return Instant.nullable().describe(meaning);
}
