import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { fastify } from "fastify";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient, pipeEventStream, toEventStream, type Client } from "../../client/index.ts";
import { expectEachEventOnce, expectRefusals } from "../gateways/gateway-drill.ts";
import { openServiceProcess, type ServiceProcess } from "./service-process.ts";

/** Two of the gateways in `examples/`. All five are in `examples.long.test.ts`. */
const GATEWAYS = { "node:http": openNodeGateway, fastify: openFastifyGateway };

interface Gateway extends AsyncDisposable {
  url: string;
}

async function openNodeGateway(acme: Client): Promise<Gateway> {
  const server = createServer((request, response) => {
    const query = new URLSearchParams(request.url?.split("?")[1]);
    const { turn: turnId = "", thread = "", message = "" } = Object.fromEntries(query);
    const turn = acme.execute({ turnId, userId: "ada", request: { taskId: thread, message } });
    void pipeEventStream(turn, { request, response });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the gateway has no port");
  return {
    url: `http://127.0.0.1:${address.port}`,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

async function openFastifyGateway(acme: Client): Promise<Gateway> {
  const app = fastify({ forceCloseConnections: true });
  app.get("/chat", async (request) => {
    const { turn: turnId = "", thread = "", message = "" } = request.query as Record<string, string>;
    const turn = acme.execute({ turnId, userId: "ada", request: { taskId: thread, message } });
    return toEventStream(turn, { lastEventId: request.headers["last-event-id"] });
  });
  const url = await app.listen({ port: 0, host: "127.0.0.1" });
  return { url, [Symbol.asyncDispose]: () => app.close() };
}

/** All tests share one service. */
describe("a product's gateway", () => {
  let service: ServiceProcess;
  let client: Client;
  let apiKey: string;

  beforeAll(async () => {
    service = await openServiceProcess();
    await service.start();
    ({ client, apiKey } = await service.openProduct("acme"));
    await client.engines.ensure({ userId: "ada" });
  });
  afterAll(async () => {
    client.close();
    await service[Symbol.asyncDispose]();
  });

  test.each(Object.entries(GATEWAYS))(
    "on %s: a browser whose connection breaks gets each event once, then 204",
    async (_name, open) => {
      await using gateway = await open(client);
      await expectEachEventOnce(gateway.url);
    },
  );

  test.each(Object.entries(GATEWAYS))(
    "on %s: a refusal has a real status and no details",
    async (_name, open) => {
      await using gateway = await open(client);
      await expectRefusals(gateway.url, client);
    },
  );

  test("no user reads another user's turn, with a cursor or without", async () => {
    await client.engines.ensure({ userId: "eve" });
    const turnId = randomUUID();
    const request = { message: "my secret", taskId: randomUUID() };
    await client.execute({ turnId, userId: "ada", request }).text();
    for (const after of [0, 1]) {
      const stolen = client.execute({ turnId, userId: "eve", request, after });
      await expect(stolen.text()).rejects.toMatchObject({
        reason: after === 0 ? "IDEMPOTENCY_MISMATCH" : "TURN_NOT_FOUND",
      });
    }
    await expect(client.follow({ turnId, userId: "eve" }).text()).rejects.toMatchObject({
      reason: "TURN_NOT_FOUND",
    });
  });

  test("another process follows a turn by its id, from the cursor of the first one", async () => {
    const turn = client.execute({ userId: "ada", request: { message: "hi", taskId: randomUUID() } });
    const seqs: number[] = [];
    for await (const { seq } of turn) {
      seqs.push(seq);
      if (seq === 5) break;
    }
    const other = createClient({ url: service.url, key: apiKey });
    const rest = other.follow({ turnId: turn.turnId, userId: "ada", after: turn.cursor });
    for await (const { seq } of rest) seqs.push(seq);
    expect(seqs).toEqual(Array.from({ length: seqs.length }, (_, index) => index + 1));
    expect(rest.cursor).toBe(seqs.length + 1);
    expect((await rest.end).status).toBe("completed");
    other.close();
  });

  /** Whether the user's engine is going or gone. */
  async function isDestroyed(userId: string): Promise<boolean> {
    const { items } = await client.api.engines.list.query();
    const engine = items.find((item) => item.userId === userId);
    return engine === undefined || engine.status === "destroying";
  }

  test("any number of processes ensure one engine at once, also one that is stopped or destroyed", async () => {
    const clients = Array.from({ length: 6 }, () => createClient({ url: service.url, key: apiKey }));
    const ensureAll = async () => {
      const engines = await Promise.all(
        clients.map(async ({ engines }) => engines.ensure({ userId: "bob" })),
      );
      expect(engines.map(({ status }) => status)).toEqual(clients.map(() => "running"));
      const ids = new Set(engines.map(({ engineId }) => engineId));
      expect(ids.size).toBe(1);
      return [...ids][0];
    };
    const first = await ensureAll();
    await client.api.engines.stop.mutate({ userId: "bob" });
    expect(await ensureAll()).toBe(first);
    const destroying = client.api.engines.destroy.mutate({ userId: "bob" });
    await expect.poll(async () => isDestroyed("bob")).toBe(true);
    const second = await ensureAll();
    await destroying;
    expect(second).not.toBe(first);
    await client.api.engines.destroy.mutate({ userId: "bob" });
    for (const one of clients) one.close();
  });
});
