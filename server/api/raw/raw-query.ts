import type { FastifyRequest } from "fastify";
import { DomainError } from "../../errors.ts";
import { toSearch } from "../http/request-url.ts";

/**
 * Reads the query parameters that a route takes. Refuses others, because a parameter that is written wrongly may be a
 * condition such as `expectGeneration`.
 */
export function readQuery<Name extends string>(
  { url }: Pick<FastifyRequest, "url">,
  names: readonly Name[],
): Partial<Record<Name, string>> {
  const found: Partial<Record<Name, string>> = {};
  for (const [given, value] of new URLSearchParams(toSearch(url))) {
    const name = names.find((known) => known === given);
    if (name !== undefined && found[name] !== undefined) {
      const message = `the query parameter ${name} comes more than once: send it once`;
      throw new DomainError("INVALID_INPUT", message);
    }
    if (name === undefined) {
      // Without the name as it was given, which may be a key that was sent by mistake.
      const message = `this route takes only the query parameters ${names.join(" and ")}: leave out the others`;
      throw new DomainError("INVALID_INPUT", message);
    }
    found[name] = value;
  }
  return found;
}
