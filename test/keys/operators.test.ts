import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { authenticate } from "../../server/keys/authenticate.ts";
import { issuePlatformKey } from "../../server/keys/issue-platform-key.ts";
import { KeyStates } from "../../server/keys/key-states.ts";
import { revokePlatformKey } from "../../server/keys/revoke-platform-key.ts";
import { ADMIN_KEY, type Api, openApi } from "../api/open-api.ts";
import { addProduct, openPlatformContext } from "../support/platform-context.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";

let api: Api;
beforeAll(async () => {
  api = await openApi();
});
afterAll(async () => api?.[Symbol.asyncDispose]());

const post = async (key: string, path: string, input: object = {}) => api.mutate(path, { key, input });
async function issue(name: string, more: object = {}): Promise<{ apiKey: string; keyId: string }> {
  const { body } = await post(ADMIN_KEY, "operators.issue", { name, ...more });
  return { apiKey: body.result.data.apiKey, keyId: body.result.data.key.keyId };
}

test("an operator key makes every call that the bootstrap key makes, and is audited by its name", async () => {
  const grace = await issue("grace");
  expect(grace.apiKey).toMatch(/^eha_/);
  const registered = await post(grace.apiKey, "products.register", { slug: "of-grace", name: "Of Grace" });
  expect(registered.status).toBe(200);
  const input = { product: "of-grace", userId: "ada" };
  expect((await post(grace.apiKey, "engines.provision", input)).status).toBe(200);
  const alan = await post(grace.apiKey, "operators.issue", { name: "alan" });
  expect(alan.status).toBe(200);
  const audit = await api.query("audit.list", { key: grace.apiKey, input: { limit: 2 } });
  expect(audit.body.result.data.items).toMatchObject([
    { action: "operator.issued", actor: { kind: "operator", id: grace.keyId, name: "grace" } },
    { action: "product.registered", actor: { kind: "operator", id: grace.keyId, name: "grace" } },
  ]);
  expect(audit.text).not.toContain(alan.body.result.data.apiKey);
});

test("a platform key cannot manage operators", async () => {
  const { apiKey } = await api.register("no-operator");
  for (const [path, input] of [
    ["operators.issue", { name: "mallory" }],
    ["operators.revoke", { keyId: randomUUID() }],
    ["engineKeys.reseal", {}],
  ] as const) {
    expect((await post(apiKey, path, input)).body.error.data.reason, path).toBe("SCOPE_MISSING");
  }
  const listed = await api.query("operators.list", { key: apiKey });
  expect(listed.body.error.data.reason).toBe("SCOPE_MISSING");
});

test("two operator keys that are not revoked never share a name, and nobody takes one that looks like another actor's", async () => {
  const first = await issue("Ada");
  const again = await post(ADMIN_KEY, "operators.issue", { name: "ADA" });
  expect(again.body.error.data).toMatchObject({ reason: "OPERATOR_NAME_EXISTS", httpStatus: 409 });
  for (const name of ["Bootstrap", "System", "\u0430da"]) {
    const reserved = await post(ADMIN_KEY, "operators.issue", { name });
    expect(reserved.body.error.data.issues).toMatchObject([{ path: "name" }]);
  }
  await post(ADMIN_KEY, "operators.revoke", { keyId: first.keyId, graceSeconds: 3_600 });
  const second = await issue("ada");
  for (const { apiKey } of [first, second]) {
    expect((await api.query("products.list", { key: apiKey })).status).toBe(200);
  }
});

test("operators of the same name have idempotency keys of their own", async () => {
  const first = await issue("twin");
  await post(ADMIN_KEY, "operators.revoke", { keyId: first.keyId, graceSeconds: 3_600 });
  const second = await issue("twin");
  const register = async (key: string, slug: string) =>
    post(key, "products.register", { slug, name: slug, idempotencyKey: "same" });
  expect((await register(first.apiKey, "twin-1")).body.result.data.product.slug).toBe("twin-1");
  expect((await register(second.apiKey, "twin-2")).body.result.data.product.slug).toBe("twin-2");
});

test("a revoked operator key is refused at once, its streams end, and the bootstrap key stays", async () => {
  const { productId, apiKey: platformKey } = await api.register("watched");
  await post(platformKey, "engines.provision", { userId: "ada" });
  const leaving = await issue("leaving");
  const turnId = randomUUID();
  api.behave("/execute", (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write('event: text_delta\ndata: {"text":"a"}\n\n');
  });
  const input = { product: "watched", turnId, userId: "ada", request: { message: "m", taskId: "t" } };
  let isRevoked = false;
  const messages: unknown[] = [];
  for await (const item of api.subscribe("turns.execute", { key: leaving.apiKey, input })) {
    messages.push(item.data);
    if (!isRevoked) await post(leaving.apiKey, "operators.revoke", { keyId: leaving.keyId });
    isRevoked = true;
  }
  expect(JSON.stringify(messages)).toContain("KEY_REVOKED");
  const refused = await api.query("products.get", { key: leaving.apiKey, input: { productId } });
  expect(refused.body.error.data.reason).toBe("KEY_REVOKED");
  expect((await api.query("products.get", { key: ADMIN_KEY, input: { productId } })).status).toBe(200);
  const audit = await api.query("audit.list", {
    key: ADMIN_KEY,
    input: { action: "operator.revoked", limit: 1 },
  });
  expect(audit.body.result.data.items).toMatchObject([
    { actor: { name: "leaving" }, metadata: { name: "leaving", graceSeconds: 0 } },
  ]);
  await post(platformKey, "turns.cancel", { turnId });
});

test("an operator key expires, and lists show its last use", async () => {
  const past = await post(ADMIN_KEY, "operators.issue", { name: "late", expiresAt: "2001-01-01T00:00:00Z" });
  expect(past.body.error.data.reason).toBe("INVALID_INPUT");
  const used = await issue("used", { expiresAt: "2999-01-01T00:00:00Z" });
  await api.query("products.list", { key: used.apiKey });
  await expect
    .poll(async () => {
      const { body } = await api.query("operators.list", { key: ADMIN_KEY, input: { limit: 1_000 } });
      const items = body.result.data.items as { keyId: string; lastUsedAt: string | null }[];
      return items.find(({ keyId }) => keyId === used.keyId);
    })
    .toMatchObject({
      productId: null,
      scopes: [],
      expiresAt: "2999-01-01T00:00:00.000Z",
      lastUsedAt: expect.any(String),
    });
});

test("a grace ends by the database's clock to the second, at every replica", async () => {
  await using ctx = await openPlatformContext();
  const { productId } = (await addProduct(ctx)).product;
  const { apiKey, key } = await issuePlatformKey(ctx, { productId, name: "graced", idempotency: NO_RECORD });
  await revokePlatformKey(ctx, { keyId: key.keyId, graceSeconds: 3_600, idempotency: NO_RECORD });
  const replicas = [ctx, { ...ctx, keyStates: new KeyStates(ctx) }];
  const outcomes = async () =>
    Promise.all(
      replicas.map(async (replica) => {
        replica.keyStates.clear();
        return authenticate(replica, apiKey).then(
          () => "accepted",
          (error: { reason: string }) => error.reason,
        );
      }),
    );
  expect(await outcomes()).toEqual(["accepted", "accepted"]);
  // Much less than the grace is left, and more than this test takes.
  await shiftDatabaseClock(ctx.url, "3300 seconds");
  expect(await outcomes()).toEqual(["accepted", "accepted"]);
  // A later revocation with a longer grace gives the key no more time.
  await revokePlatformKey(ctx, { keyId: key.keyId, graceSeconds: 86_400, idempotency: NO_RECORD });
  await shiftDatabaseClock(ctx.url, "3600 seconds");
  expect(await outcomes()).toEqual(["KEY_REVOKED", "KEY_REVOKED"]);
});
