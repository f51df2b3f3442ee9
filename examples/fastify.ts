import { createClient, toEventStream } from "@enginehouse/client";
import { fastify } from "fastify";

const { ENGINEHOUSE_URL: url = "http://127.0.0.1:8080", PLATFORM_KEY: key = "", PORT = "3000" } = process.env;
const acme = createClient({ url, key });
// From the product's own session, never from the request.
const userId = "ada";
await acme.engines.ensure({ userId });
const app = fastify();

app.get("/chat", async (request) => {
  const { turn: turnId = "", thread = "", message = "" } = request.query as Record<string, string>;
  const turn = acme.execute({ turnId, userId, request: { taskId: thread, message } });
  return toEventStream(turn, { lastEventId: request.headers["last-event-id"] });
});

await app.listen({ port: Number(PORT), host: "127.0.0.1" });
