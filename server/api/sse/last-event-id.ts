import type { FastifyRequest } from "fastify";

/**
 * The cursor of a reader that comes back. undefined: the reader has none. The header takes precedence: a browser's
 * EventSource sends it to the URL that it began with. An empty value counts as absent.
 */
export function findLastEventId(
  { headers }: Pick<FastifyRequest, "headers">,
  fromQuery: string | null | undefined,
): string | undefined {
  const header = headers["last-event-id"];
  return (typeof header === "string" && header) || fromQuery || undefined;
}
