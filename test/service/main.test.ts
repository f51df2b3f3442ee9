import { execFile } from "node:child_process";
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { toWelcome } from "../../server/boot/welcome.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import {
  ADMIN_KEY,
  callProcedure,
  findEmbeddedPid,
  registerProduct,
  spawnService,
  startService,
} from "./spawn-service.ts";

/** Runs the example that a first start prints, and returns its output. */
async function runSnippet(output: string, directory: string): Promise<string> {
  const lines = output.slice(output.indexOf("  import "), output.lastIndexOf("turn.text());") + 13);
  const file = join(directory, "try.ts");
  await writeFile(
    file,
    lines.replace("./client/index.ts", new URL("../../client/index.ts", import.meta.url).href),
  );
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [file]);
  expect(stderr).toBe("");
  return stdout;
}

test("a start without configuration serves, prints the example once, and keeps its data across a restart", async () => {
  await using home = await openTempDir();
  const dataDir = join(home.path, "data");
  await using first = await startService({ ORCH_DATA_DIR: dataDir });
  await expect.poll(() => first.output()).toContain("turn.text());");
  // The output is not a terminal and may be stored, so it must not contain the key.
  expect(first.output()).not.toContain("eha_");
  expect((await stat(join(dataDir, "secrets.json"))).mode & 0o777).toBe(0o600);
  const shown = await runSnippet(first.output(), home.path);
  expect(shown).toMatch(/\nThis is message 1 /);
  // A second run gets the same product, key and engine.
  const [firstLine = ""] = shown.split("\n");
  expect(await runSnippet(first.output(), home.path)).toContain(firstLine);
  const key = firstLine.slice(firstLine.indexOf("ehp_"));
  expect(await first.signal("SIGTERM")).toBe(0);
  expect(await findEmbeddedPid(dataDir)).toBeUndefined();

  await using second = await startService({ ORCH_DATA_DIR: dataDir });
  expect(second.output()).not.toContain("try.ts");
  expect(second.output()).toContain(join(dataDir, "secrets.json"));
  const found = await callProcedure({ url: second.url, key }, "engines.get", { userId: "ada" });
  expect(found.data).toMatchObject({ status: "running", generation: 1, url: expect.any(String) });
  const called = await callProcedure({ url: second.url, key }, "rpc.call", {
    userId: "ada",
    method: "get_config",
  });
  expect(called.data).toMatchObject({ generation: 1 });
  const destroyed = await callProcedure({ url: second.url, key }, "engines.destroy", { userId: "ada" });
  expect(destroyed.data).toMatchObject({ destroyed: true });
});

test("a terminal shows the operator key", () => {
  const input = { url: "http://127.0.0.1:8080", adminKey: "eha_key", secretsPath: "/data/secrets.json" };
  expect(toWelcome({ ...input, showsKey: true })).toContain("eha_key");
  expect(toWelcome({ ...input, showsKey: false })).not.toContain("eha_key");
});

test("after kill -9 the next start adopts the same Postgres, and the live turn goes on", async () => {
  await using home = await openTempDir();
  // The engine finishes its turn before it stops, within this grace period.
  const environment = { ORCH_DATA_DIR: home.path, ORCH_ADMIN_KEY: ADMIN_KEY, ORCH_STOP_GRACE_S: "1" };
  await using first = await startService(environment);
  const key = await registerProduct(first.url);
  await callProcedure({ url: first.url, key }, "engines.provision", { userId: "ada" });
  const turnId = crypto.randomUUID();
  const request = { message: "hello", taskId: "t", reference: { words: 600, delayMs: 20 } };
  const started = await callProcedure({ url: first.url, key }, "turns.start", {
    turnId,
    userId: "ada",
    request,
  });
  expect(started.data).toMatchObject({ status: "streaming" });
  // After this many events, the status `streaming` is in the database.
  await expect
    .poll(async () => (await callProcedure({ url: first.url, key }, "turns.get", { turnId })).data["lastSeq"])
    .toBeGreaterThan(100);
  const postgres = await findEmbeddedPid(home.path);
  await first.signal("SIGKILL");
  expect(await findEmbeddedPid(home.path)).toBe(postgres);

  await using second = await startService(environment);
  expect(await findEmbeddedPid(home.path)).toBe(postgres);
  const get = async () => (await callProcedure({ url: second.url, key }, "turns.get", { turnId })).data;
  expect(await get()).toMatchObject({ status: "streaming", end: null });
  await expect.poll(get, { timeout: 120_000 }).toMatchObject({ status: "completed", end: { reason: null } });
  const again = await callProcedure({ url: second.url, key }, "turns.start", {
    turnId,
    userId: "ada",
    request,
  });
  expect(again.data).toMatchObject({ status: "completed", created: false });
  const other = { ...request, message: "another" };
  const mismatch = await callProcedure({ url: second.url, key }, "turns.start", {
    turnId,
    userId: "ada",
    request: other,
  });
  expect(mismatch.reason).toBe("IDEMPOTENCY_MISMATCH");
  await callProcedure({ url: second.url, key }, "engines.destroy", { userId: "ada", whenBusy: "interrupt" });
  const verdict = await callProcedure({ url: second.url, key }, "audit.verify", {});
  expect(verdict.data).toMatchObject({ ok: true });
  expect(await second.signal("SIGTERM")).toBe(0);
  expect(await findEmbeddedPid(home.path)).toBeUndefined();
});

test("a second signal ends the drain at once with exit code 0, and a turn goes on at the next start", async () => {
  await using home = await openTempDir();
  const stopping = { ORCH_DRAIN_S: "3600", ORCH_STOP_GRACE_S: "1" };
  const environment = { ORCH_DATA_DIR: home.path, ORCH_ADMIN_KEY: ADMIN_KEY, ...stopping };
  await using first = await startService(environment);
  const key = await registerProduct(first.url);
  await callProcedure({ url: first.url, key }, "engines.provision", { userId: "ada" });
  const turnId = crypto.randomUUID();
  const request = { message: "hello", taskId: "t", reference: { words: 60, delayMs: 500 } };
  await callProcedure({ url: first.url, key }, "turns.start", { turnId, userId: "ada", request });
  void first.signal("SIGTERM");
  await expect.poll(() => first.output()).toContain("draining");
  // An earlier signal would count as the same one. A third one would skip the close.
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(await first.signal("SIGTERM")).toBe(0);
  await using second = await startService(environment);
  const turn = await callProcedure({ url: second.url, key }, "turns.get", { turnId });
  expect(turn.data).toMatchObject({ status: "streaming", end: null });
  const started = Number(turn.data["lastSeq"]);
  await expect
    .poll(async () => {
      const { data } = await callProcedure({ url: second.url, key }, "turns.get", { turnId });
      return data["lastSeq"];
    })
    .toBeGreaterThan(started);
  await callProcedure({ url: second.url, key }, "engines.destroy", { userId: "ada", whenBusy: "interrupt" });
});

test("of two starts at once on one data directory, one serves and the other fails with its pid", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const environment = {
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
  };
  const both = [spawnService(environment), spawnService(environment)];
  const answers = await Promise.allSettled(both.map((service) => service.listening));
  expect(answers.map((answer) => answer.status).toSorted((a, b) => a.localeCompare(b))).toEqual([
    "fulfilled",
    "rejected",
  ]);
  const refused = both[answers.findIndex((answer) => answer.status === "rejected")];
  const serving = both[answers.findIndex((answer) => answer.status === "fulfilled")];
  expect(await refused?.exited).toBe(1);
  expect(refused?.output()).toContain(`process ${serving?.pid} already serves`);
  expect(await serving?.signal("SIGTERM")).toBe(0);
});

test("an invalid configuration ends the start with one line for each value, and without secrets", async () => {
  const service = spawnService({
    ORCH_PORT: "eighty",
    ORCH_ENGINE_BACKEND: "podman",
    ORCH_MASTER_KEYS: "one:c2hvcnQ=",
    ORCH_ENGINE_IMAGE: "engine:latest",
  });
  await expect(service.listening).rejects.toThrow();
  expect(await service.exited).toBe(2);
  const lines = service
    .output()
    .split("\n")
    .filter((line) => line.startsWith("ORCH_"));
  expect(new Set(lines.map((line) => line.split(/[^A-Z_]/, 1)[0]))).toEqual(
    new Set(["ORCH_ENGINE_BACKEND", "ORCH_ENGINE_IMAGE", "ORCH_MASTER_KEYS", "ORCH_PORT"]),
  );
  expect(service.output()).not.toContain("c2hvcnQ=");
});
