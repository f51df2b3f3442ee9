/** Converts a timestamp in Postgres' text format to an ISO instant with milliseconds. null stays null. */
export function toInstant(timestamp: string): string;
export function toInstant(timestamp: string | null): string | null;
export function toInstant(timestamp: string | null): string | null {
  return timestamp === null ? null : new Date(timestamp).toISOString();
}
