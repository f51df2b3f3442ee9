import type { IncomingMessage } from "node:http";
import type { FastifyInstance, FastifyRequest } from "fastify";
import { LargeBodies } from "./large-bodies.ts";
import { readBody, type BodyContext } from "./read-body.ts";
import { getCaller, type CallerContext } from "./request-caller.ts";

/** The largest body of most requests. */
export const REQUEST_MAX_BYTES = 1024 * 1024;
/** The largest body of a request that holds a message. */
export const TURN_START_MAX_BYTES = 8 * 1024 * 1024;

type JsonBodyContext = CallerContext & Omit<BodyContext, "largeBodies">;

/** Makes the text of a JSON body the body of its request. Bodies of other content types are refused. */
export function acceptJsonBodies(server: FastifyInstance, ctx: JsonBodyContext): void {
  server.removeAllContentTypeParsers();
  const bodyContext = { ...ctx, largeBodies: new LargeBodies() };
  server.addContentTypeParser("application/json", async (request: FastifyRequest, payload: IncomingMessage) =>
    readBody(bodyContext, { request, payload, caller: getCaller(ctx, request) }),
  );
}
