import { createClient, pipeEventStream } from "@enginehouse/client";
import express from "express";

const { ENGINEHOUSE_URL: url = "http://127.0.0.1:8080", PLATFORM_KEY: key = "", PORT = "3000" } = process.env;
const acme = createClient({ url, key });
// From the product's own session, never from the request.
const userId = "ada";
await acme.engines.ensure({ userId });
const app = express();

app.get("/chat", async (request, response) => {
  const { turn: turnId = "", thread = "", message = "" } = request.query as Record<string, string>;
  const turn = acme.execute({ turnId, userId, request: { taskId: thread, message } });
  await pipeEventStream(turn, { request, response });
});

app.listen(Number(PORT), "127.0.0.1");
