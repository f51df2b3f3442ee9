import { KeyStates } from "../../server/keys/key-states.ts";
import { OpenedKeys } from "../../server/keys/opened-keys.ts";
import { connect, createServer, type Server, type Socket } from "node:net";
import { once } from "node:events";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openDatabase } from "../../db/client.ts";
import { openHttpServer } from "../../server/api/http/http-server.ts";
import type { AppContext } from "../../server/compose.ts";
import { ADMIN_KEY, type Api, openApi } from "./open-api.ts";

let api: Api;
let key: string;
beforeAll(async () => {
  api = await openApi();
  ({ apiKey: key } = await api.register("troubled"));
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

/** Opens a proxy between the service and its database, so that a test can cut the connections. */
async function openLine(databaseUrl: string): Promise<{ url: string; cut(): Promise<void>; server: Server }> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect(Number(target.port), target.hostname);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => {
        near.destroy();
        far.destroy();
      });
    }
    near.pipe(far).pipe(near);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("a TCP server without a port");
  const url = new URL(databaseUrl);
  url.hostname = "127.0.0.1";
  url.port = String(address.port);
  const cut = async () => {
    const closed = once(server, "close");
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  return { url: url.href, cut, server };
}

test("without its database the service answers DATABASE_UNAVAILABLE without any detail, and is not ready", async () => {
  const line = await openLine(api.databaseUrl);
  const database = openDatabase({ url: line.url, poolSize: 2, applicationName: "cut" });
  const { db, raw } = database;
  const ctx: AppContext = { ...api.ctx, db, raw, keyStates: new KeyStates({ ...api.ctx, db }) };
  const server = await openHttpServer(ctx, { host: "127.0.0.1", port: 0 });
  try {
    const ask = async () => {
      const response = await fetch(`${server.url}/trpc/products.list`, {
        headers: { authorization: `Bearer ${ADMIN_KEY}` },
      });
      return { status: response.status, text: await response.text() };
    };
    expect((await ask()).status).toBe(200);
    await line.cut();
    const refused = await ask();
    expect(JSON.parse(refused.text).error.data).toMatchObject({
      reason: "DATABASE_UNAVAILABLE",
      httpStatus: 503,
      retryAfterMs: expect.any(Number),
    });
    expect(refused.text).not.toMatch(/ECONN|select|127\.0\.0\.1|stack/i);
    await expect.poll(async () => (await fetch(`${server.url}/readyz`)).status).toBe(503);
    expect((await fetch(`${server.url}/healthz`)).status).toBe(200);
    const keyed = await fetch(`${server.url}/trpc/engines.list`, {
      headers: { authorization: `Bearer ${key}` },
    });
    expect(await keyed.text()).toContain("DATABASE_UNAVAILABLE");
  } finally {
    await server.close();
    await database.close();
  }
});

test("an unexpected error is answered as internal error and logged once, both with the request id", async () => {
  const keyring = {
    ...api.ctx.keyring,
    open: () => {
      throw new TypeError("hunter2 at /srv/secret");
    },
  };
  const openedKeys = new OpenedKeys(keyring, api.ctx.tamperReports);
  const broken: AppContext = { ...api.ctx, keyring, openedKeys };
  const { apiKey } = await api.register("sealed");
  await api.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
  const server = await openHttpServer(broken, { host: "127.0.0.1", port: 0 });
  try {
    const response = await fetch(`${server.url}/trpc/rpc.call`, {
      method: "POST",
      headers: {
        authorization: `Bearer ${apiKey}`,
        "content-type": "application/json",
        "x-request-id": "unforeseen",
      },
      body: JSON.stringify({ userId: "ada", method: "m" }),
    });
    expect(JSON.parse(await response.text())).toEqual({
      error: {
        message: "internal error",
        code: -32603,
        data: {
          code: "INTERNAL_SERVER_ERROR",
          httpStatus: 500,
          path: "rpc.call",
          reason: "INTERNAL",
          requestId: "unforeseen",
        },
      },
    });
    const lines = api.logged.filter((line) => line.includes("unforeseen") && line.includes("hunter2"));
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({
      level: "error",
      path: "rpc.call",
      reason: "INTERNAL",
    });
  } finally {
    await server.close();
  }
});
