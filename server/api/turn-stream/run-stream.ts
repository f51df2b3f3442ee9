import { callTRPCProcedure } from "@trpc/server";
import type { FastifyRequest } from "fastify";
import { appRouter } from "../routers/router.ts";
import type { EventStream } from "../sse/event-stream.ts";
import type { RequestContext } from "../trpc/request-context.ts";

export interface StreamCall {
  /** The subscription's path in the router. */
  path: string;
  request: FastifyRequest;
  ctx: RequestContext;
  /** Aborts when the caller leaves. */
  left: AbortSignal;
  readInput: (request: FastifyRequest) => unknown;
}

/**
 * Calls a subscription and writes its texts to the stream, up to its end. `onOpen` is called once the procedure has
 * admitted the call. Throws what the procedure and its generator throw. The caller ends the stream.
 */
export async function runStream(call: StreamCall, stream: EventStream, onOpen?: () => void): Promise<void> {
  const { path, request, ctx, left, readInput } = call;
  const send = ({ value, done }: IteratorResult<string, unknown>) => {
    if (done !== true && value !== "") stream.write(value);
    return done !== true;
  };
  let read: { input: unknown } | undefined;
  let texts: AsyncIterator<string> | undefined;
  try {
    const iterable: AsyncIterable<string> = await callTRPCProcedure({
      router: appRouter,
      path,
      type: "subscription",
      getRawInput: async () => (read ??= { input: readInput(request) }).input,
      ctx: { ...ctx, connection: stream },
      signal: left,
      batchIndex: 0,
    });
    texts = iterable[Symbol.asyncIterator]();
    onOpen?.();
    // Not `for await`: it would keep the last text in memory for as long as the stream waits for the next one.
    while (send(await texts.next())) {
      if (read === undefined) continue;
      // The call has begun. A stream may last for hours, so drop its input, which may be large.
      read = undefined;
      request.body = undefined;
      request.incoming?.drop();
    }
  } finally {
    await texts?.return?.();
  }
}
