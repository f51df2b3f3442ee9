import { request } from "node:http";
import { once } from "node:events";
import { Agent, fetch, type RequestInit } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ENGINE_KEY, openHome, spawnEngine, type EngineHome, type RunningEngine } from "./spawn-engine.ts";

let home: EngineHome;
let engine: RunningEngine;
/** Without keep-alive: a stalled test process would reuse an idle connection that the engine has just closed. */
const dispatcher = new Agent({ pipelining: 0 });
beforeAll(async () => {
  home = await openHome();
  engine = await spawnEngine(home);
});
afterAll(async () => {
  await dispatcher.close();
  await engine[Symbol.asyncDispose]();
  await home[Symbol.asyncDispose]();
});

async function send(
  path: string,
  init: RequestInit,
): Promise<{ status: number; body: unknown; allow: string | null }> {
  const response = await fetch(engine.url + path, { ...init, dispatcher });
  return { status: response.status, body: await response.json(), allow: response.headers.get("allow") };
}

test.each(["/execute", "/rpc", "/hitl/respond"])(
  "POST %s without the right key is 401 INVALID_KEY",
  async (path) => {
    for (const key of [undefined, "", "wrong", `${ENGINE_KEY}x`, ENGINE_KEY.slice(1)]) {
      const headers: Record<string, string> = key === undefined ? {} : { "x-engine-key": key };
      const { status, body } = await send(path, { method: "POST", headers, body: "{" });
      expect(status).toBe(401);
      expect(body).toEqual({ error: "INVALID_KEY", message: expect.any(String) });
    }
  },
);

test.each(["/execute/replay?after=0", "/hitl/pending"])(
  "GET %s without the right key is 401",
  async (path) => {
    expect((await send(path, {})).status).toBe(401);
  },
);

test("an unknown path is 404, and a wrong method is 405 with the allowed method", async () => {
  expect(await send("/nothing", {})).toMatchObject({ status: 404, body: { error: "NOT_FOUND" } });
  expect(await send("//", {})).toMatchObject({ status: 404 });
  expect(await send("/execute", {})).toMatchObject({ status: 405, allow: "POST" });
  expect(await send("/health", { method: "POST", body: "x" })).toMatchObject({ status: 405, allow: "GET" });
});

test.each<[string, string | Uint8Array<ArrayBuffer>]>([
  ["not JSON", "{"],
  ["empty", ""],
  ["an array", "[]"],
  ["null", "null"],
  ["not UTF-8", new Uint8Array([0x22, 0xff, 0x22])],
])("a body that is %s is 400", async (_what, body) => {
  for (const path of ["/execute", "/rpc", "/hitl/respond"]) {
    const reply = await send(path, { method: "POST", headers: { "x-engine-key": ENGINE_KEY }, body });
    expect(reply).toMatchObject({ status: 400, body: { error: "INVALID_REQUEST" } });
  }
});

test.each([
  [{ task_id: "t" }],
  [{ message: "hi" }],
  [{ message: "", task_id: "t" }],
  [{ message: 1, task_id: "t" }],
  [{ message: "hi", task_id: "" }],
  [{ message: "hi", task_id: "x".repeat(513) }],
  [{ message: "hi", task_id: "\ud800" }],
  [{ message: "hi", task_id: "t", media: "x" }],
  [{ message: "hi", task_id: "t", direct: "yes" }],
  [{ message: "hi", task_id: "t", edit_message_id: 1 }],
  [{ message: "hi", task_id: "t", edit_message_id: "unknown" }],
  [{ message: "hi", task_id: "t", retry_message_id: "unknown" }],
  [{ message: "hi", task_id: "t", edit_message_id: "a", retry_message_id: "a" }],
  [{ message: "hi", task_id: "t", reference: [] }],
  [{ message: "hi", task_id: "t", reference: { words: 0 } }],
  [{ message: "hi", task_id: "t", reference: { delayMs: -1 } }],
  [{ message: "hi", task_id: "t", reference: { failWith: "not a code" } }],
])("the request %j is refused with 400 and leaves nothing in the brain", async (body) => {
  expect(await engine.post("/execute", body)).toMatchObject({
    status: 400,
    body: { error: "INVALID_REQUEST" },
  });
  expect(await engine.rpc("memory.list_threads")).toEqual({ status: 200, body: { result: { threads: [] } } });
});

test("a body over 16 MiB is 413, with or without a content length, and the engine stays usable", async () => {
  const big = JSON.stringify({ message: "x".repeat(17 * 1024 * 1024), task_id: "t" });
  const headers = { "x-engine-key": ENGINE_KEY };
  expect(await send("/execute", { method: "POST", headers, body: big })).toMatchObject({
    status: 413,
    body: { error: "REQUEST_TOO_LARGE" },
  });
  const body = new Blob([big]).stream();
  expect(await send("/rpc", { method: "POST", headers, body, duplex: "half" })).toMatchObject({
    status: 413,
  });
  expect((await engine.get("/health")).status).toBe(200);
});

test("a client that sends a large body with a wrong key receives the 401", async () => {
  expect(await send("/execute", { method: "POST", body: "x".repeat(8 * 1024 * 1024) })).toMatchObject({
    status: 401,
  });
});

test("the engine stays healthy when a client leaves in the middle of its body", async () => {
  const headers = { "x-engine-key": ENGINE_KEY, "content-length": "100" };
  const req = request(`${engine.url}/execute`, { method: "POST", headers });
  req.on("error", () => undefined);
  req.write("{");
  await once(req, "socket");
  await new Promise((resolve) => req.socket?.once("connect", resolve));
  req.destroy();
  expect((await engine.get("/health")).status).toBe(200);
  expect(engine.output.stderr).toBe("");
});

test("a config that nests too deeply is 400, and the stored config does not change", async () => {
  const deep = `{"method":"set_config","params":{"config":{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}}}`;
  const headers = { "x-engine-key": ENGINE_KEY };
  const reply = await send("/rpc", { method: "POST", headers, body: deep });
  expect(reply).toMatchObject({ status: 400, body: { error: "INVALID_REQUEST" } });
  expect((await engine.rpc("get_config")).body).toMatchObject({ result: { config: {}, revision: 0 } });
});
