import { randomUUID } from "node:crypto";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { createKey } from "../../server/keys/key-format.ts";
import { ADMIN_KEY, callProcedure, startService } from "../service/spawn-service.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { type Footprint, openInspector, type Inspector } from "./inspector.ts";
import { judgeConnection } from "./judge-reply.ts";
import { sendBytes } from "./raw-connection.ts";

const AT_ONCE = 10;
const TOLERANCE = 1.05;

interface Target {
  url: string;
  key: string;
}

function post(path: string, key: string, body: string): string {
  const headers = [
    "host: x",
    "connection: close",
    "content-type: application/json",
    `authorization: Bearer ${key}`,
    `content-length: ${Buffer.byteLength(body)}`,
  ];
  return `POST /trpc/${path} HTTP/1.1\r\n${headers.join("\r\n")}\r\n\r\n${body}`;
}

/** One request of each hostile kind. */
function listShots({ key }: Target, round: number): string[] {
  const turn = { turnId: randomUUID(), userId: "ada", request: { message: "hi", taskId: randomUUID() } };
  const deep = `{"userId":"ada","method":"m","params":{"a":${"[".repeat(5_000)}${"]".repeat(5_000)}}}`;
  const shots = [
    post("engines.provision", key, '{"userId":"ad'),
    post("engines.get", createKey("platform").plaintext, '{"userId":"ada"}'),
    post("engines.list", key, JSON.stringify({ [`surprise${round}`]: "x".repeat(1_000) })),
    post("rpc.call", key, deep),
    post("turns.events", key, JSON.stringify({ turnId: randomUUID() })),
    `GET /healthz HTTP/1.1\r\nhost: x\r\ncookie: ${"x".repeat(17_000)}\r\n\r\n`,
    post("engines.get", key, "{}")
      .replace("content-length: 2", "transfer-encoding: chunked")
      .replace("{}", "zz"),
  ];
  // These requests take longer than all the others together, so only some rounds have them.
  if (round % 10 === 0) {
    shots.push(
      post("turns.start", key, JSON.stringify(turn)),
      post("rpc.call", key, JSON.stringify({ userId: "ada", method: "get_config", params: { round } })),
      post("engines.get", key, JSON.stringify({ userId: `nobody${round}` })),
      post("rpc.call", key, "x".repeat(1_100_000)),
    );
  }
  return shots;
}

/** Closes the connection in the middle of an upload. */
async function leave({ url, key }: Target): Promise<void> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  socket.on("error", () => {});
  socket.write(post("turns.start", key, " ".repeat(60_000)).slice(0, 50_000), () => socket.destroy());
  const closed = Promise.withResolvers<void>();
  socket.on("close", () => closed.resolve());
  await closed.promise;
}

async function fireRounds(target: Target, from: number, until: number): Promise<void> {
  for (let first = from; first < until; first += AT_ONCE) {
    const rounds = Array.from({ length: AT_ONCE }, (_, index) => first + index);
    const shots = rounds.flatMap((round) => listShots(target, round));
    const replies = shots.map(async (shot) => judgeConnection(await sendBytes(target.url, shot)));
    await Promise.all([...replies, ...rounds.map(async () => leave(target))]);
  }
}

/** The largest of five measurements, so that short-lived objects count as early growth. */
async function measurePeak(inspector: Inspector): Promise<Footprint> {
  const all: Footprint[] = [];
  for (let taken = 0; taken < 5; taken += 1) all.push(await inspector.measure());
  return {
    heapBytes: Math.max(...all.map((one) => one.heapBytes)),
    resources: Math.max(...all.map((one) => one.resources)),
    descriptors: Math.max(...all.map((one) => one.descriptors)),
  };
}

test("after a thousand hostile rounds the service uses no more memory and handles than after a hundred", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using service = await startService({
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_ENGINE_BACKEND: "process",
    NODE_OPTIONS: "--inspect=127.0.0.1:0",
  });
  using inspector = await openInspector(service.output());
  const { data } = await callProcedure({ url: service.url, key: ADMIN_KEY }, "products.register", {
    slug: "fire",
    name: "Fire",
  });
  const target = { url: service.url, key: String(data["apiKey"]) };
  const provisioned = await callProcedure(target, "engines.provision", { userId: "ada" });
  expect(provisioned.status).toBe(200);

  await fireRounds(target, 0, 100);
  const early = await measurePeak(inspector);
  await fireRounds(target, 100, 1_000);
  for (const name of ["descriptors", "resources", "heapBytes"] as const) {
    const held = async () => (await inspector.measure())[name];
    await expect.poll(held, { message: name }).toBeLessThanOrEqual(early[name] * TOLERANCE);
  }
  expect(service.output()).not.toMatch(/"level":"(?:error|warn)"/);
  expect((await callProcedure(target, "engines.get", { userId: "ada" })).status).toBe(200);
  await callProcedure(target, "engines.destroy", { userId: "ada" });
}, 600_000);
