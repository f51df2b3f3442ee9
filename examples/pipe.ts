import { createClient } from "@enginehouse/client";
import { serve } from "@hono/node-server";
import { Hono } from "hono";

const { ENGINEHOUSE_URL: url = "http://127.0.0.1:8080", PLATFORM_KEY: key = "", PORT = "3000" } = process.env;
await createClient({ url, key }).engines.ensure({ userId: "ada" });
const app = new Hono();

// The product has started the turn, and knows that it belongs to the user of this session.
app.get("/turns/:turnId/events", async ({ req }) => {
  const headers = { authorization: `Bearer ${key}`, "last-event-id": req.header("last-event-id") ?? "" };
  const turnId = encodeURIComponent(req.param("turnId"));
  return fetch(`${url}/v1/turns/${turnId}/events`, { headers, signal: req.raw.signal });
});

serve({ fetch: app.fetch, port: Number(PORT), hostname: "127.0.0.1" });
