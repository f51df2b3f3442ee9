import { createServer, request } from "node:http";
import { tellListening } from "./tell-listening.ts";

/*
 * The least that a relay can do: each request goes to the engine as it is, and what comes back goes to the caller,
 * bytes for bytes. No log, no keys, no reading of what passes.
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
server.listen({ port: 0, host: "127.0.0.1", backlog: 4_096 }, () => tellListening(server));
process.on("SIGTERM", () => process.exit(0));
