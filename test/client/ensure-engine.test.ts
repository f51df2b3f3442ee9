import { expect, test } from "vitest";
import { createClient } from "../../client/index.ts";
import { openFakeService, sendRefusal, sendResult } from "./fake-service.ts";

const retry = { firstDelayMs: 1, maxDelayMs: 5, callForMs: 2_000 };

/** Each answer is a status of the engine, or a reason. After the last one, every call is refused. */
async function ensure(answers: readonly string[]) {
  const left = [...answers];
  await using service = await openFakeService(({ path, response }) => {
    const answer = left.shift() ?? "INTERNAL";
    if (/^[A-Z]/.test(answer)) return sendRefusal(response, answer, { retryAfterMs: 1 });
    const engine = { userId: "ada", status: answer };
    sendResult(response, path === "engines.provision" ? { engine, apiKey: "secret" } : engine);
  });
  const client = createClient({ url: service.url, key: "key", retry });
  const outcome = await client.engines.ensure({ userId: "ada" }).then(
    (engine) => engine,
    (error: unknown) => error,
  );
  client.close();
  return { outcome, calls: service.seen.map(({ path }) => path.slice("engines.".length)), left };
}

const running = { userId: "ada", status: "running" };

test.each([
  ["runs", ["running"], ["get"]],
  ["is absent", ["ENGINE_NOT_FOUND", "running"], ["get", "provision"]],
  ["is stopped", ["stopped", "running"], ["get", "start"]],
  ["boots", ["provisioning", "running"], ["get", "start"]],
  ["has failed", ["failed", "running"], ["get", "start"]],
  [
    "is provisioned by another caller",
    ["ENGINE_NOT_FOUND", "ENGINE_ALREADY_EXISTS", "running"],
    ["get", "provision", "start"],
  ],
  [
    "boots longer than provision waits",
    ["ENGINE_NOT_FOUND", "provisioning", "running"],
    ["get", "provision", "start"],
  ],
  ["has failed at its first boot", ["failed", "ENGINE_UNHEALTHY", "running"], ["get", "start", "provision"]],
  ["is destroyed meanwhile", ["stopped", "ENGINE_NOT_FOUND", "running"], ["get", "start", "provision"]],
  [
    "is being destroyed",
    ["destroying", "ENGINE_DESTROYING", "ENGINE_DESTROYING", "running"],
    ["get", "provision", "provision", "provision"],
  ],
])("ensure returns an engine that %s, running", async (_name, answers, calls) => {
  expect(await ensure(answers)).toEqual({ outcome: running, calls, left: [] });
});

test.each([
  ["get", ["SCOPE_MISSING"]],
  ["provision", ["ENGINE_NOT_FOUND", "PORT_EXHAUSTION"]],
  ["provision", ["ENGINE_NOT_FOUND", "QUOTA_EXCEEDED"]],
  ["start", ["stopped", "BOOT_FAILED"]],
])("ensure throws what %s is refused for", async (_call, answers) => {
  const { outcome } = await ensure(answers);
  expect(outcome).toMatchObject({ name: "EnginehouseError", reason: answers.at(-1), requestId: "request-1" });
});

test("ensure gives up on an engine that never runs, and on one whose destruction never ends", async () => {
  const never = await ensure(["stopped", ...Array.from({ length: 20 }, () => "starting")]);
  expect(never.outcome).toMatchObject({ reason: "ENGINE_UNHEALTHY", isTransient: true });
  const { outcome } = await ensure(Array.from({ length: 21 }, () => "ENGINE_DESTROYING"));
  expect(outcome).toMatchObject({ reason: "ENGINE_DESTROYING" });
});

test("a signal ends the waiting", async () => {
  await using service = await openFakeService(({ path, response }) => {
    if (path === "engines.get") sendRefusal(response, "ENGINE_NOT_FOUND");
  });
  const client = createClient({ url: service.url, key: "key", retry });
  const leaving = new AbortController();
  const ensuring = client.engines.ensure({ userId: "ada", signal: leaving.signal });
  await expect.poll(() => service.seen.length).toBe(2);
  leaving.abort(new Error("enough"));
  await expect(ensuring).rejects.toThrow("enough");
});
