import { execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createClient, findReason, type Client, type TurnEvent } from "../../client/index.ts";
import { runFirstTurn } from "../../demo/client-example.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openServiceProcess, type ServiceProcess } from "./service-process.ts";
import { openShortWire } from "./short-wire.ts";

const toRequest = (steering: object = {}) => ({
  userId: "ada",
  request: { message: "hello", taskId: randomUUID(), reference: steering },
});
const range = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

/** All tests share one service. A test that stops it starts it again. */
describe("the client and the service", () => {
  let service: ServiceProcess;
  let client: Client;
  let apiKey: string;

  beforeAll(async () => {
    service = await openServiceProcess();
    await service.start();
    ({ client, apiKey } = await service.openProduct("acme"));
    await client.api.engines.provision.mutate({ userId: "ada" });
  });
  afterAll(async () => {
    client.close();
    await service[Symbol.asyncDispose]();
  });

  async function isReady(): Promise<boolean> {
    const response = await fetch(`${service.url}/readyz`).catch(() => undefined);
    await response?.arrayBuffer().catch(() => undefined);
    return response?.status === 200;
  }

  test("the example that newcomers copy provisions an engine and prints its answer", async () => {
    const newcomer = await service.openProduct("newcomer");
    const printed: string[] = [];
    await runFirstTurn(service.url, newcomer.apiKey, (text) => printed.push(text));
    expect(printed.join("")).toMatch(/^This is message 1 .*\ncompleted\n$/s);
    printed.length = 0;
    await runFirstTurn(service.url, newcomer.apiKey, (text) => printed.push(text));
    expect(printed.join("")).toMatch(/^This is message 2 .*\ncompleted\n$/s);
  });

  test("the example of the README works, also a second time", async () => {
    const reader = await service.openProduct("reader");
    await using folder = await openTempDir();
    const root = new URL("../../", import.meta.url);
    const readme = await readFile(new URL("README.md", root), "utf8");
    const example = /^```ts\n(?<code>.*?)^```$/ms.exec(readme)?.groups?.["code"] ?? "";
    const file = join(folder.path, "try.ts");
    const here = example
      .replace("./client/index.ts", new URL("client/index.ts", root).href)
      .replace("http://127.0.0.1:8080", service.url);
    await writeFile(file, here);
    for (const count of [1, 2]) {
      const env = { PATH: process.env["PATH"], PLATFORM_KEY: reader.apiKey };
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [file], { env });
      expect(stdout).toMatch(new RegExp(`^This is message ${count} .*completed\n$`, "s"));
      expect(stderr).toBe("");
    }
  });

  test("a turn delivers each type of event of the contract, numbered without gaps", async () => {
    const events: TurnEvent[] = [];
    for await (const event of client.execute(toRequest())) events.push(event);
    expect(events.map((event) => event.seq)).toEqual(range(events.length));
    expect(events.at(0)).toMatchObject({ type: "thread_lifecycle", data: { phase: "started" } });
    expect(events.at(-1)).toMatchObject({ type: "thread_lifecycle", data: { phase: "completed" } });
    expect(events.map((event) => String(event.type))).toEqual(
      expect.arrayContaining([
        "heartbeat",
        "thinking_delta",
        "tool_call",
        "tool_result",
        "text_delta",
        "usage",
      ]),
    );
  });

  test("the engine answers a message of one megabyte", async () => {
    const { userId, request } = toRequest();
    const message = "word ".repeat(200 * 1024);
    const text = await client.execute({ userId, request: { ...request, message } }).text();
    expect(text).toContain("it has 204800 words");
  });

  test("a connection that breaks again and again loses no event and repeats none", async () => {
    // Enough for the largest batch, but only a small part of this turn.
    await using wire = await openShortWire(service.url, 32 * 1024);
    const cutClient = createClient({ url: wire.url, key: apiKey });
    const turn = cutClient.execute(toRequest({ words: 3_000 }));
    const seqs: number[] = [];
    for await (const event of turn) seqs.push(event.seq);
    expect(seqs).toEqual(range(seqs.length));
    expect(seqs.length).toBeGreaterThan(3_000);
    expect(wire.connections).toBeGreaterThan(5);
    cutClient.close();
  });

  test("executing the same turn id twice reads one turn", async () => {
    const input = { ...toRequest({ words: 20 }), turnId: randomUUID() };
    const [first, second] = await Promise.all([client.execute(input).text(), client.execute(input).text()]);
    expect(second).toBe(first);
    const { items } = await client.api.turns.list.query({ userId: "ada" });
    expect(items.filter(({ taskId }) => taskId === input.request.taskId)).toHaveLength(1);
  });

  test("a turn that fails at the engine throws the engine's error after its events", async () => {
    const turn = client.execute(toRequest({ failWith: "LLM_DOWN" }));
    await expect(turn.text()).rejects.toMatchObject({
      reason: "ENGINE_ERROR",
      end: { status: "failed" },
      engineError: { code: "LLM_DOWN" },
    });
  });

  test("a cancelled turn returns", async () => {
    const turn = client.execute(toRequest({ words: 1_000, delayMs: 20 }));
    for await (const event of turn) if (event.seq === 5) await turn.cancel();
    expect(await turn.end).toMatchObject({ status: "cancelled", reason: "CANCELLED" });
  });

  test.each([0, 1, 2, 4, 8, 16])(
    "a turn that is cancelled %i ms after its start returns, too",
    async (ms) => {
      const turn = client.execute(toRequest({ words: 1_000, delayMs: 10 }));
      const text = turn.text();
      if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
      expect(await turn.cancel()).toMatchObject({ turnId: turn.turnId, status: "cancelled" });
      await text;
      expect(await turn.end).toMatchObject({ status: "cancelled", reason: "CANCELLED" });
    },
  );

  test("refusals of execute and of api have their reasons", async () => {
    const stranger = createClient({ url: service.url, key: `${apiKey.slice(0, -1)}_` });
    await expect(stranger.execute(toRequest()).text()).rejects.toMatchObject({ reason: "INVALID_KEY" });
    const nobody = client.execute({ ...toRequest(), userId: "nobody" });
    await expect(nobody.text()).rejects.toMatchObject({ reason: "ENGINE_NOT_FOUND" });
    await expect(nobody.end).rejects.toMatchObject({ reason: "ENGINE_NOT_FOUND" });
    const error: unknown = await client.api.engines.get
      .query({ userId: "" })
      .catch((thrown: unknown) => thrown);
    expect(findReason(error)).toBe("INVALID_INPUT");
    expect(error).toMatchObject({ data: { issues: [{ path: "userId" }] } });
  });

  test("a turn continues across a restart of the service, with every event once", async () => {
    const turn = client.execute(toRequest({ words: 100, delayMs: 10 }));
    const seqs: number[] = [];
    let restarted: Promise<void> | undefined;
    for await (const event of turn) {
      seqs.push(event.seq);
      if (event.seq === 40) restarted = service.stop("SIGTERM").then(() => service.start());
    }
    await restarted;
    expect(seqs).toEqual(range(seqs.length));
    expect(await turn.end).toMatchObject({ status: "completed" });
  });

  test("a turn continues across a kill of the service, and a call during the restart is answered", async () => {
    const turn = client.execute(toRequest({ words: 200, delayMs: 10 }));
    const seqs: number[] = [];
    let restarted: Promise<unknown> | undefined;
    for await (const event of turn) {
      seqs.push(event.seq);
      if (event.seq === 40) restarted = service.stop("SIGKILL").then(() => service.start());
    }
    expect(await turn.end).toMatchObject({ status: "completed" });
    expect(seqs).toEqual(range(seqs.length));
    await restarted;
    const retry = { maxDelayMs: 200, callForMs: 300_000 };
    const patient = createClient({ url: service.url, key: apiKey, retry });
    const stopped = service.stop("SIGTERM");
    // From here on the old process answers no calls.
    await expect.poll(isReady).toBe(false);
    const calling = patient.api.rpc.setConfig.mutate({ userId: "ada", config: {} });
    const [answer] = await Promise.all([calling, stopped.then(() => service.start())]);
    expect(answer).toMatchObject({ config: {} });
    patient.close();
  });
});
