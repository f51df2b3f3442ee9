import { createClient, toEventStream } from "@enginehouse/client";
import { serve } from "@hono/node-server";
import { Hono } from "hono";

const { ENGINEHOUSE_URL: url = "http://127.0.0.1:8080", PLATFORM_KEY: key = "", PORT = "3000" } = process.env;
const acme = createClient({ url, key });
// From the product's own session, never from the request.
const userId = "ada";
await acme.engines.ensure({ userId });
const app = new Hono();

app.get("/chat", async ({ req }) => {
  const { turn: turnId = "", thread = "", message = "" } = req.query();
  const turn = acme.execute({ turnId, userId, request: { taskId: thread, message } });
  return toEventStream(turn, { lastEventId: req.header("last-event-id"), signal: req.raw.signal });
});

serve({ fetch: app.fetch, port: Number(PORT), hostname: "127.0.0.1" });
