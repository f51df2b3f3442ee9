import { createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import { buffer } from "node:stream/consumers";
import { openEngine } from "../../engine/engine.ts";
import { parseEngineEnv } from "../../engine/engine-env.ts";

/*
 * The reference engine as a program, with a pace that the message asks for: `300 words, 20 ms each`. A gateway passes on
 * no more than a message, so a browser cannot use the engine's own field for the pace.
 */

const env = parseEngineEnv(process.env);
const limits = { configFile: "/config/gateway.yaml", drainLimitMs: 25_000, abortLimitMs: 2_000 };
const engine = await openEngine({ ...env, ...limits, host: "127.0.0.1", port: 0 });

async function forward(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = addPace(await buffer(incoming));
  const { "content-length": _length, "transfer-encoding": _encoding, ...headers } = incoming.headers;
  const { method, url: path } = incoming;
  const outgoing = request({ host: "127.0.0.1", port: engine.port, method, path, headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    response.flushHeaders();
    answer.pipe(response);
  });
  outgoing.on("error", () => response.destroy());
  response.once("close", () => outgoing.destroy());
  outgoing.end(body);
}

function addPace(body: Buffer): Buffer {
  const text = body.toString();
  const pace = /"message":"(?<words>\d+) words, (?<delayMs>\d+) ms each"/.exec(text)?.groups;
  if (pace === undefined) return body;
  const reference = { words: Number(pace["words"]), delayMs: Number(pace["delayMs"]) };
  return Buffer.from(JSON.stringify({ ...(JSON.parse(text) as object), reference }));
}

const server = createServer((incoming, response) => {
  forward(incoming, response).catch(() => response.destroy());
});
process.once("SIGTERM", () => {
  server.close();
  void engine.close().then(() => process.exit(0));
});
server.listen(env.port, env.host);
