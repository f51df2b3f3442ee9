import { createServer, request } from "node:http";
import { logListening } from "./log-listening.ts";

/*
 * The cheapest possible relay: it passes each request to the engine and the answer back to the caller, byte for byte,
 * without a log, keys or parsing.
 */

const engineUrl = process.env["BENCH_ENGINE_URL"] ?? "";

const server = createServer((incoming, outgoing) => {
  const { method, url, headers } = incoming;
  const { host: _host, ...others } = headers;
  const upstream = request(`${engineUrl}${url}`, { method, headers: others, agent: false }, (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(outgoing);
  });
  upstream.on("error", () => outgoing.destroy());
  outgoing.on("close", () => upstream.destroy());
  incoming.pipe(upstream);
});
server.listen({ port: 0, host: "127.0.0.1", backlog: 4_096 }, () => logListening(server));
process.on("SIGTERM", () => process.exit(0));
