import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Client } from "../../client/index.ts";
import { openShortWire } from "../client/short-wire.ts";
import { openServiceProcess, type ServiceProcess } from "../client/service-process.ts";
import { findProgram } from "../support/find-program.ts";
import { openChromium } from "./chromium.ts";
import {
  checkExampleTypes,
  EXAMPLE_NAMES,
  installExamples,
  openExample,
  type ExampleName,
} from "./example-gateways.ts";
import { expectEachEventOnce, expectEachEventOnceAt, expectRefusals, toChat } from "./gateway-drill.ts";
import { openRecordedSource } from "./recorded-source.ts";

const chromium = findProgram("chromium");
const PACED = "120 words, 25 ms each";
const PACED_ENGINE = `${process.execPath} ${join(import.meta.dirname, "paced-engine.ts")}`;
const range = (count: number) => Array.from({ length: count }, (_, index) => index + 1);

/** All tests share one service and one engine, and the frameworks that `npm ci` has installed for the examples. */
describe("the examples of gateways", () => {
  let service: ServiceProcess;
  let client: Client;
  let apiKey: string;

  beforeAll(async () => {
    // Otherwise npm, the compiler and Next leave a cache in the temporary directory.
    vi.stubEnv("NODE_DISABLE_COMPILE_CACHE", "1");
    await installExamples();
    service = await openServiceProcess({ ORCH_ENGINE_COMMAND: PACED_ENGINE });
    await service.start();
    ({ client, apiKey } = await service.openProduct("acme"));
  }, 900_000);
  afterAll(async () => {
    vi.unstubAllEnvs();
    client?.close();
    await service?.[Symbol.asyncDispose]();
  });
  const open = async (name: ExampleName) => openExample(name, { url: service.url, apiKey });

  test("all of them compile", async () => {
    await checkExampleTypes();
  });

  describe.each(EXAMPLE_NAMES)("%s", (name) => {
    test("serves browsers over broken connections and a killed gateway, and refuses with a status", async () => {
      await using gateway = await open(name);
      await expectEachEventOnce(gateway.url);
      await expectRefusals(gateway.url, client);

      const turn = randomUUID();
      using source = openRecordedSource(toChat(gateway.url, { message: PACED, turn }));
      await expect.poll(() => source.events.length).toBeGreaterThan(20);
      await gateway.kill();
      await gateway.start();
      expect(await source.closed).toBe(204);
      expect(source.events.map(({ seq }) => seq)).toEqual(range(source.events.length));
      expect(source.events.length).toBeGreaterThan(120);
      expect(source.connections).toBeGreaterThan(1);
      const { items } = await client.api.turns.list.query({ userId: "ada" });
      expect(items.filter(({ turnId }) => turnId === turn)).toMatchObject([{ status: "completed" }]);
    });

    test("stops reading when the browser leaves, and the turn goes on", async () => {
      await using wire = await openShortWire(service.url, Number.POSITIVE_INFINITY);
      await using gateway = await openExample(name, { url: wire.url, apiKey });
      const turnId = randomUUID();
      const source = openRecordedSource(
        toChat(gateway.url, { message: "50000 words, 20 ms each", turn: turnId }),
      );
      await expect.poll(() => source.events.length).toBeGreaterThan(5);
      source[Symbol.dispose]();
      const countEvents = async () => (await client.api.turns.get.query({ turnId })).lastSeq;
      /** What the gateway reads while the turn goes on. */
      const countBytes = async () => {
        const [bytes, events] = [wire.bytes, await countEvents()];
        await expect.poll(countEvents).toBeGreaterThan(events + 20);
        return wire.bytes - bytes;
      };
      await expect.poll(countBytes, { timeout: 60_000 }).toBe(0);
      expect(await client.api.turns.cancel.mutate({ turnId })).toMatchObject({ status: "cancelled" });
    });
  });

  test("five lines that pass a raw route on serve a browser over broken connections, until 204", async () => {
    await using gateway = await open("pipe");
    const turnId = randomUUID();
    const request = { message: "hello", taskId: turnId };
    await client.api.turns.start.mutate({ turnId, userId: "ada", request });
    await expectEachEventOnceAt(`${gateway.url}/turns/${turnId}/events`);
    const absent = await fetch(`${gateway.url}/turns/${randomUUID()}/events`);
    expect([absent.status, await absent.json()]).toMatchObject([
      404,
      { error: { reason: "TURN_NOT_FOUND" } },
    ]);
  });

  describe.skipIf(chromium === undefined)("in Chromium", () => {
    test("a page gets every event once although the gateway restarts, and stops for good after the end", async () => {
      await using gateway = await open("node-http");
      await using browser = await openChromium(chromium ?? "");
      const page = await browser.follow(toChat(gateway.url, { message: PACED }));
      await expect.poll(async () => (await page.seen()).seqs.length).toBeGreaterThan(20);
      await gateway.kill();
      await expect.poll(async () => (await page.seen()).errors).toBeGreaterThan(0);
      await gateway.start();
      await expect.poll(async () => (await page.seen()).isClosed, { timeout: 60_000 }).toBe(true);
      const { seqs, types } = await page.seen();
      expect(seqs).toEqual(range(seqs.length));
      expect(seqs.length).toBeGreaterThan(120);
      expect(types.at(-1)).toBe("enginehouse.end");
      // The first connection, the one after the restart, and the one that got 204.
      expect(page.statuses().filter((status) => status === 200).length).toBeGreaterThan(1);
      expect(page.statuses().at(-1)).toBe(204);
    });

    test("the example's page shows the answer and its end, and what was refused", async () => {
      await using gateway = await open("node-http");
      await using browser = await openChromium(chromium ?? "");
      const shown = await browser.openPage(gateway.url, { message: PACED, thread: randomUUID() });
      await expect.poll(async () => shown.textOf("#status")).toBe("completed");
      expect(await shown.textOf("#answer")).toMatch(/^This is message 1 .* word-120$/s);
      await shown.screenshot();
      const refused = await browser.openPage(gateway.url, { message: "" });
      await expect.poll(async () => refused.textOf("#status")).toBe("refused");
    });
  });
});
