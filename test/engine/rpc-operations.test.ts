import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openBrain } from "../../engine/brain.ts";
import { getGatewayConfig, reloadGatewayConfig, setGatewayConfig } from "../../engine/gateway-config.ts";
import { openHome, spawnEngine, type EngineHome, type RunningEngine } from "./spawn-engine.ts";

let home: EngineHome;
let engine: RunningEngine;
beforeAll(async () => {
  home = await openHome();
  engine = await spawnEngine(home);
});
afterAll(async () => {
  await engine[Symbol.asyncDispose]();
  await home[Symbol.asyncDispose]();
});

test("set_config replaces the whole config and increases its revision", async () => {
  const first = await engine.rpc("set_config", { config: { a: 1, b: { c: [2] } } });
  expect(first).toMatchObject({ status: 200, body: { result: { config: { a: 1, b: { c: [2] } } } } });
  const { revision } = (first.body as { result: { revision: number } }).result;
  await engine.rpc("set_config", { config: { only: "this" } });
  expect((await engine.rpc("get_config")).body).toEqual({
    result: { config: { only: "this" }, revision: revision + 1, updated_at: expect.any(String) },
  });
});

test.each([[{}], [{ config: null }], [{ config: [] }], [{ config: "x" }]])(
  "set_config refuses %j and keeps the config",
  async (params) => {
    const before = await engine.rpc("get_config");
    expect(await engine.rpc("set_config", params)).toMatchObject({
      status: 400,
      body: { error: "INVALID_REQUEST" },
    });
    expect(await engine.rpc("get_config")).toEqual(before);
  },
);

test("of many concurrent set_config calls each is applied whole", async () => {
  const configs = Array.from({ length: 20 }, (_, index) => ({ index, again: index }));
  await Promise.all(configs.map((config) => engine.rpc("set_config", { config })));
  const { body } = await engine.rpc("get_config");
  const { config } = (body as { result: { config: { index: number; again: number } } }).result;
  expect(config.again).toBe(config.index);
});

test("an unknown method is 400 UNKNOWN_METHOD, prototype names included", async () => {
  for (const method of ["skill.list", "constructor", "__proto__", ""]) {
    expect(await engine.rpc(method)).toMatchObject({ status: 400, body: { error: "UNKNOWN_METHOD" } });
  }
});

test("a method that is not a string is 400, and so are params that are not an object", async () => {
  expect(await engine.post("/rpc", {})).toMatchObject({ status: 400, body: { error: "INVALID_REQUEST" } });
  expect(await engine.rpc("get_config", [])).toMatchObject({
    status: 400,
    body: { error: "INVALID_REQUEST" },
  });
});

test("quota_state and cache_state add up the usage of all turns", async () => {
  await using home = await openHome();
  await using engine = await spawnEngine(home);
  await engine.execute({ message: "one two three", task_id: "quota", reference: { words: 4 } });
  await engine.execute({ message: "four", task_id: "quota", reference: { words: 4 } });
  expect((await engine.rpc("quota_state")).body).toEqual({
    result: { turns: 2, input_tokens: 11, output_tokens: 8, limit: null },
  });
  expect((await engine.rpc("cache_state")).body).toEqual({
    result: { input_tokens: 11, cached_input_tokens: 7, hit_ratio: 7 / 11 },
  });
});

test("memory.* lists and reads threads, and an unknown thread is THREAD_NOT_FOUND", async () => {
  await engine.execute({ message: "note this", task_id: "memory" });
  const list = await engine.rpc("memory.list_threads", { limit: 1 });
  expect(list.body).toMatchObject({ result: { threads: [{ task_id: "memory" }] } });
  expect((await engine.rpc("memory.get_thread", { task_id: "memory" })).body).toMatchObject({
    result: {
      task_id: "memory",
      working_memory: { messages_seen: 1, last_message: "note this" },
      messages: [{ role: "user", text: "note this", exchange: 1 }, { role: "assistant" }],
    },
  });
  const missing = await engine.rpc("memory.get_thread", { task_id: "none" });
  expect(missing).toMatchObject({ status: 422, body: { error: "THREAD_NOT_FOUND" } });
});

test("reload reads a JSON file, changes nothing without a file, and refuses an invalid file without a change", async () => {
  const folder = await mkdtemp(join(tmpdir(), "engine-config-"));
  const file = join(folder, "gateway.yaml");
  const brain = openBrain(join(folder, "brain.sqlite"));
  try {
    setGatewayConfig(brain, { from: "caller" });
    expect(reloadGatewayConfig(brain, file)).toMatchObject({
      reloaded: false,
      config: { from: "caller" },
      revision: 1,
    });
    await writeFile(file, '{"from": "file"}');
    expect(reloadGatewayConfig(brain, file)).toMatchObject({
      reloaded: true,
      config: { from: "file" },
      revision: 2,
    });
    await writeFile(file, "from: yaml\n");
    expect(() => reloadGatewayConfig(brain, file)).toThrow(/not JSON/);
    await writeFile(file, "[]");
    expect(() => reloadGatewayConfig(brain, file)).toThrow(/does not hold an object/);
    await rm(file);
    expect(() => reloadGatewayConfig(brain, folder)).toThrow(/cannot be read/);
    expect(getGatewayConfig(brain)).toMatchObject({ config: { from: "file" }, revision: 2 });
  } finally {
    brain.close();
    await rm(folder, { recursive: true });
  }
});

test("the result of reload without a file tells that nothing was reloaded", async () => {
  await engine.rpc("set_config", { config: { stays: true } });
  expect((await engine.rpc("reload")).body).toMatchObject({
    result: { reloaded: false, config: { stays: true } },
  });
});
