import { createServer } from "node:http";
import { createClient, pipeEventStream } from "@enginehouse/client";

const { ENGINEHOUSE_URL: url = "http://127.0.0.1:8080", PLATFORM_KEY: key = "", PORT = "3000" } = process.env;
const acme = createClient({ url, key });
// From the product's own session, never from the request.
const userId = "ada";
await acme.engines.ensure({ userId });

const server = createServer((request, response) => {
  const query = new URLSearchParams(request.url?.split("?")[1]);
  const { turn: turnId = "", thread = "", message = "" } = Object.fromEntries(query);
  const turn = acme.execute({ turnId, userId, request: { taskId: thread, message } });
  void pipeEventStream(turn, { request, response });
});

server.listen(Number(PORT), "127.0.0.1");
