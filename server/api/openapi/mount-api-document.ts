import { createHash } from "node:crypto";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { PROBE_METHODS } from "../http/probe-methods.ts";
import { cutOnceStalled } from "../http/unsent-answers.ts";
import { toApiDocument } from "./api-document.ts";

export const API_DOCUMENT_PATH = "/v1/openapi.json";

interface Served {
  /** One buffer for all readers, so that a reader that takes nothing holds no copy. */
  body: Buffer;
  etag: string;
}

/**
 * Serves the API document. It needs no key: it holds no secret, and tools that read such documents send none. The document
 * is made at the first request, once for each server.
 */
export function mountApiDocument(server: FastifyInstance): void {
  let served: Served | undefined;
  const handler = async (request: FastifyRequest, reply: FastifyReply) => {
    served ??= serve();
    const { body, etag } = served;
    reply.header("etag", etag).header("cache-control", "no-cache");
    if (request.headers["if-none-match"] === etag) return reply.code(304).send();
    cutOnceStalled(reply.raw, request.raw.socket);
    return reply.type("application/json").send(body);
  };
  server.route({ method: PROBE_METHODS, url: API_DOCUMENT_PATH, handler });
}

function serve(): Served {
  const body = Buffer.from(JSON.stringify(toApiDocument()));
  return { body, etag: `"${createHash("sha256").update(body).digest("base64url")}"` };
}
