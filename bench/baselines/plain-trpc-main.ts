import { initTRPC, tracked, TRPCError } from "@trpc/server";
import { fastifyTRPCPlugin } from "@trpc/server/adapters/fastify";
import { EventSourceParserStream } from "eventsource-parser/stream";
import { fastify } from "fastify";
import { z } from "zod";
import { logListening } from "./log-listening.ts";

/*
 * A simple relay over tRPC, written without thought for its cost: one subscription yields each event as it comes, and
 * one stays idle.
 */

const engineUrl = process.env["BENCH_ENGINE_URL"] ?? "";
const apiKey = process.env["BENCH_API_KEY"];

interface Context {
  authorization: string | undefined;
}

// The same pings as in the service: without pings, proxies close a quiet stream.
const t = initTRPC.context<Context>().create({ sse: { ping: { enabled: true, intervalMs: 15_000 } } });
const procedure = t.procedure.use(({ ctx, next }) => {
  if (ctx.authorization !== `Bearer ${apiKey}`) throw new TRPCError({ code: "UNAUTHORIZED" });
  return next();
});

const router = t.router({
  relay: procedure
    .input(z.object({ body: z.string(), lastEventId: z.string().optional() }))
    .subscription(async function* ({ input, signal }) {
      const response = await fetch(`${engineUrl}/execute`, {
        method: "POST",
        body: input.body,
        ...(signal && { signal }),
      });
      if (response.body === null) throw new TRPCError({ code: "BAD_GATEWAY" });
      const messages = response.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream());
      let seq = 0;
      for await (const { event: type = "message", data } of messages) {
        seq += 1;
        yield tracked(String(seq), {
          seq,
          at: new Date().toISOString(),
          type,
          data: JSON.parse(data) as unknown,
        });
      }
    }),
  idle: procedure.input(z.object({ lastEventId: z.string().optional() })).subscription(async function* ({
    signal,
  }) {
    yield tracked("1", { type: "started" });
    await new Promise<void>((resolve) => signal?.addEventListener("abort", () => resolve(), { once: true }));
  }),
});

const server = fastify();
await server.register(fastifyTRPCPlugin, {
  prefix: "/trpc",
  trpcOptions: {
    router,
    createContext: ({ req }: { req: { headers: { authorization?: string } } }): Context => ({
      authorization: req.headers.authorization,
    }),
  },
});
await server.listen({ port: 0, host: "127.0.0.1", backlog: 4_096 });
logListening(server.server);
process.on("SIGTERM", () => process.exit(0));
