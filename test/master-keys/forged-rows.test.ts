import { randomUUID } from "node:crypto";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { SYSTEM_ACTOR } from "../../server/audit/audit-entry.ts";
import { provisionEngine } from "../../server/engines/operations/provision-engine.ts";
import { hashKey, createKey } from "../../server/keys/key-format.ts";
import { sealEngineKey } from "../../server/keys/engine-key.ts";
import { toCall } from "../engines/open-house.ts";
import { ADMIN_KEY, type Api, openApi, type Reply } from "../api/open-api.ts";

let api: Api;
beforeAll(async () => {
  api = await openApi();
});
afterAll(async () => api?.[Symbol.asyncDispose]());

const run = async (statement: ReturnType<typeof sql>) => api.ctx.db.execute(statement);
const reasonOf = (reply: Reply): unknown => reply.body.error?.data.reason;

/** An engine of a product of its own, and a second one whose columns an attacker may copy. */
async function openVictim(slug: string) {
  const { productId, apiKey } = await api.register(slug);
  const { apiKey: keysKey } = await api.issue(productId, { scopes: ["keys", "read", "lifecycle"] });
  const provision = async (userId: string): Promise<string> => {
    const reply = await api.mutate("engines.provision", { key: apiKey, input: { userId } });
    return reply.body.result.data.engine.engineId;
  };
  const [engineId, otherId] = [await provision("ada"), await provision("bob")];
  const containers = async () => {
    const observed = await api.house.runtime.observe(engineId);
    return observed.map(({ containerId, incarnation, state }) => ({ containerId, incarnation, state }));
  };
  return { productId, apiKey, keysKey, engineId, otherId, containers };
}

async function countReports(table: string, rowId: string): Promise<number> {
  const { body } = await api.query("audit.list", {
    key: ADMIN_KEY,
    input: { action: "row.tampering_found", limit: 1_000 },
  });
  const rows = body.result.data.items as { metadata: { table: string; rowId: string } }[];
  return rows.filter(({ metadata }) => metadata.table === table && metadata.rowId === rowId).length;
}

const FORGED_COLUMNS = {
  "catalogPath /": sql`spec = jsonb_set(spec, '{catalogPath}', '"/"')`,
  "the capability SYS_ADMIN": sql`spec = jsonb_set(spec, '{limits,capAdd}', '["SYS_ADMIN"]')`,
  "another image": sql`spec = jsonb_set(jsonb_set(spec, '{image}', '"evil:1"'), '{imageId}', '"evil:1"')`,
  "the user root": sql`spec = jsonb_set(spec, '{limits,user}', '"root"')`,
  "the host's network": sql`spec = jsonb_set(spec, '{network}', '"host"')`,
  "more environment": sql`spec = jsonb_set(spec, '{environmentNames}', '["OPENAI_API_KEY"]')`,
  "the volume of another engine": sql`volume_name = (select volume_name from engines where user_id = 'bob' limit 1)`,
  "the hash of another key": sql`key_hash = ${hashKey("known to the attacker")}`,
  "the hash of another next key": sql`next_key_hash = ${hashKey("x")}, next_key_sealed = key_sealed`,
  "another user": sql`user_id = 'mallory'`,
  "a MAC that was erased": sql`mac = null`,
  "the MAC of another engine": sql`mac = (select mac from engines where user_id = 'bob' limit 1)`,
};

describe("an engine whose row was forged is refused, reported once, and never run", () => {
  test.each(Object.entries(FORGED_COLUMNS))("%s", async (_what, forgery) => {
    const victim = await openVictim(`forged-${randomUUID().slice(0, 8)}`);
    const before = await victim.containers();
    // The incarnation makes the next reconcile create a container.
    await run(
      sql`update engines set ${forgery}, incarnation = incarnation + 1, status = 'starting' where id = ${victim.engineId}`,
    );
    expect(await api.ctx.reconciler.reconcile(victim.engineId)).toBe("tampered");
    expect(await api.ctx.reconciler.reconcile(victim.engineId)).toBe("tampered");
    expect(await victim.containers()).toEqual(before);
    const [row] = await run(
      sql`select user_id, status, status_reason from engines where id = ${victim.engineId}`,
    );
    expect(row).toMatchObject({ status: "failed" });
    expect(row?.["status_reason"]).toContain("row_tampered: ");
    expect(row?.["status_reason"]).toContain("keys:adopt");
    const input = { userId: row?.["user_id"] };
    for (const operation of ["engines.restart", "engineKeys.rotate", "engines.stop"]) {
      expect(reasonOf(await api.mutate(operation, { key: victim.apiKey, input })), operation).toBe(
        "ROW_TAMPERED",
      );
    }
    const called = await api.mutate("rpc.call", { key: victim.apiKey, input: { ...input, method: "m" } });
    expect(["ROW_TAMPERED", "ENGINE_STOPPED"]).toContain(reasonOf(called));
    expect(await victim.containers()).toEqual(before);
    const destroyed = await api.mutate("engines.destroy", { key: victim.apiKey, input });
    expect(reasonOf(destroyed)).toBe("ROW_TAMPERED");
    expect(await victim.containers()).toEqual(before);
    await expect.poll(async () => countReports("engines", victim.engineId)).toBe(1);
  });
});

test("an operation that refuses a forged engine before any reconcile reports it once", async () => {
  const { apiKey, engineId } = await openVictim("unreconciled");
  await run(sql`update engines set spec = jsonb_set(spec, '{catalogPath}', '"/"') where id = ${engineId}`);
  const input = { userId: "ada", when: "now" };
  expect(reasonOf(await api.mutate("engineKeys.rotate", { key: apiKey, input }))).toBe("ROW_TAMPERED");
  await expect.poll(async () => countReports("engines", engineId)).toBe(1);
  expect(await api.ctx.reconciler.reconcile(engineId)).toBe("tampered");
  expect(await countReports("engines", engineId)).toBe(1);
});

test("a rotation does not make a forged row valid, and a row that is restored runs again", async () => {
  const { apiKey, engineId, containers } = await openVictim("restored");
  const before = await containers();
  const [kept] = await run(sql`select spec from engines where id = ${engineId}`);
  await run(sql`update engines set spec = jsonb_set(spec, '{catalogPath}', '"/"') where id = ${engineId}`);
  const input = { userId: "ada" };
  for (let attempt = 0; attempt < 2; attempt += 1) {
    const rotated = await api.mutate("engineKeys.rotate", { key: apiKey, input: { ...input, when: "now" } });
    expect(reasonOf(rotated)).toBe("ROW_TAMPERED");
  }
  expect(await containers()).toEqual(before);
  await run(sql`update engines set spec = ${JSON.stringify(kept?.["spec"])}::jsonb where id = ${engineId}`);
  const rotated = await api.mutate("engineKeys.rotate", { key: apiKey, input: { ...input, when: "now" } });
  expect(rotated.status).toBe(200);
  const started = await api.query("engines.get", { key: apiKey, input });
  expect(started.body.result.data).toMatchObject({ status: "running", statusReason: null });
});

test("an engine that was moved to another product is not run there, and its key is not revealed there", async () => {
  const victim = await openVictim("moved-from");
  const thief = await openVictim("moved-to");
  await run(
    sql`update engines set product_id = ${thief.productId}, user_id = 'eve' where id = ${victim.engineId}`,
  );
  const input = { userId: "eve" };
  expect(reasonOf(await api.mutate("engineKeys.reveal", { key: thief.keysKey, input }))).toBe("ROW_TAMPERED");
  const called = await api.mutate("rpc.call", { key: thief.apiKey, input: { ...input, method: "m" } });
  expect(reasonOf(called)).toBe("ROW_TAMPERED");
  expect(reasonOf(await api.mutate("engines.restart", { key: thief.apiKey, input }))).toBe("ROW_TAMPERED");
});

test("a sealed key that was copied from another engine does not open, and is reported", async () => {
  const { keysKey, engineId, otherId } = await openVictim("copied");
  await run(
    sql`update engines set key_sealed = (select key_sealed from engines where id = ${otherId}) where id = ${engineId}`,
  );
  const revealed = await api.mutate("engineKeys.reveal", { key: keysKey, input: { userId: "ada" } });
  expect(reasonOf(revealed)).toBe("ROW_TAMPERED");
  await expect.poll(async () => countReports("engines", engineId)).toBe(1);
});

test("no key and no message is sent to an address that was forged", async () => {
  const { apiKey, engineId, otherId } = await openVictim("redirected");
  for (const forgery of [
    sql`endpoint = 'http://127.0.0.1:1'`,
    sql`endpoint = (select endpoint from engines where id = ${otherId})`,
  ]) {
    await run(sql`update engines set ${forgery} where id = ${engineId}`);
    const called = await api.mutate("rpc.call", { key: apiKey, input: { userId: "ada", method: "m" } });
    expect(reasonOf(called)).toBe("ROW_TAMPERED");
  }
});

test("an idempotency record that names another product's engine gives neither its key nor its state", async () => {
  const victim = await openVictim("named");
  const thief = await openVictim("namer");
  const input = { userId: "new", wait: false, idempotencyKey: "stolen" };
  const first = await api.mutate("engines.provision", { key: thief.apiKey, input });
  const own = first.body.result.data.engine.engineId;
  await run(
    sql`update idempotency set state = 'running', reply_sealed = null, subject = ${victim.engineId},
          replica_id = ${randomUUID()} where scope = ${thief.productId} and key = 'stolen'`,
  );
  const stolen = await api.mutate("engines.provision", { key: thief.apiKey, input });
  expect(reasonOf(stolen)).toBe("ENGINE_ALREADY_EXISTS");
  expect(stolen.text).not.toContain(victim.engineId);
  expect(own).not.toBe(victim.engineId);
});

const FORGED_KEYS = {
  "wider scopes": sql`scopes = '{read,lifecycle,turns,rpc,keys}'`,
  "no expiry": sql`expires_at = null`,
  "a later expiry": sql`expires_at = orch_now() + interval '10 years'`,
  "an endless expiry": sql`expires_at = 'infinity'`,
  "another product": sql`product_id = (select id from products where slug = 'other-product')`,
  "another name": sql`name = 'somebody else'`,
  "a MAC that was erased": sql`mac = null`,
};

test.each(Object.entries(FORGED_KEYS))(
  "a platform key with %s is refused and reported once",
  async (_what, forgery) => {
    const slug = `key-${randomUUID().slice(0, 8)}`;
    const { productId } = await api.register(slug);
    const [other] = await run(sql`select id from products where slug = 'other-product'`);
    if (other === undefined) await api.register("other-product");
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
    const { keyId, apiKey } = await api.issue(productId, { scopes: ["read"], expiresAt });
    expect((await api.query("engines.list", { key: apiKey })).status).toBe(200);
    await run(sql`update platform_keys set ${forgery} where id = ${keyId}`);
    api.ctx.keyStates.clear();
    for (let attempt = 0; attempt < 3; attempt += 1) {
      api.ctx.keyStates.clear();
      const refused = await api.query("engines.list", { key: apiKey });
      expect(reasonOf(refused)).toBe("INVALID_KEY");
      expect(refused.body.error.message).toContain("does not verify");
    }
    await expect.poll(async () => countReports("platform_keys", keyId)).toBe(1);
  },
);

test("a revoked key does not work again when its revocation is erased", async () => {
  const { productId } = await api.register("unrevoked");
  const { keyId, apiKey } = await api.issue(productId);
  await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId } });
  await run(sql`update platform_keys set revoked_at = null where id = ${keyId}`);
  api.ctx.keyStates.clear();
  expect(reasonOf(await api.query("engines.list", { key: apiKey }))).toBe("INVALID_KEY");
  await run(sql`update platform_keys set revoked_at = orch_now() + interval '1 day' where id = ${keyId}`);
  api.ctx.keyStates.clear();
  expect(reasonOf(await api.query("engines.list", { key: apiKey }))).toBe("INVALID_KEY");
  // A second revocation must not make the forged row valid.
  expect((await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId } })).status).toBe(200);
  expect(["INVALID_KEY", "KEY_REVOKED"]).toContain(
    reasonOf(await api.query("engines.list", { key: apiKey })),
  );
});

test("a platform key that was inserted is refused, also with the MAC of another one", async () => {
  const { productId } = await api.register("inserted");
  const { plaintext, hash, prefix } = createKey("platform");
  for (const mac of [
    sql`null`,
    sql`(select mac from platform_keys where product_id = ${productId} limit 1)`,
  ]) {
    const id = randomUUID();
    await run(sql`insert into platform_keys (id, product_id, name, prefix, hash, scopes, created_at, mac)
      values (${id}, ${productId}, 'default', ${prefix}, ${hash}, '{keys}', orch_now(), ${mac})`);
    api.ctx.keyStates.clear();
    expect(reasonOf(await api.query("engines.list", { key: plaintext }))).toBe("INVALID_KEY");
    await run(sql`delete from platform_keys where id = ${id}`);
  }
});

test("an operator that was inserted, or whose hash, name or expiry was changed, is refused", async () => {
  const issued = await api.mutate("operators.issue", { key: ADMIN_KEY, input: { name: "forged" } });
  const { key, apiKey } = issued.body.result.data;
  const list = async (bearer: string) => {
    api.ctx.keyStates.clear();
    return reasonOf(await api.query("products.list", { key: bearer }));
  };
  expect(await list(apiKey)).toBeUndefined();
  const mine = createKey("operator");
  const id = randomUUID();
  await run(sql`insert into operators (id, name, prefix, hash, created_at, mac)
    values (${id}, 'mallory', ${mine.prefix}, ${mine.hash}, orch_now(), (select mac from operators where id = ${key.keyId}))`);
  expect(await list(mine.plaintext)).toBe("INVALID_KEY");
  await expect.poll(async () => countReports("operators", id)).toBe(1);
  await run(sql`delete from operators where id = ${id}`);
  await run(sql`update operators set hash = ${mine.hash}, prefix = ${mine.prefix} where id = ${key.keyId}`);
  expect(await list(mine.plaintext)).toBe("INVALID_KEY");
  await run(
    sql`update operators set hash = ${hashKey(apiKey)}, prefix = ${key.prefix} where id = ${key.keyId}`,
  );
  expect(await list(apiKey)).toBeUndefined();
  for (const forgery of [
    sql`name = 'alice'`,
    sql`expires_at = orch_now() + interval '1 day'`,
    sql`mac = null`,
  ]) {
    await run(sql`update operators set ${forgery} where id = ${key.keyId}`);
    expect(await list(apiKey)).toBe("INVALID_KEY");
  }
});

const FORGED_LIMITS = {
  "no limit of engines": sql`policy = policy - 'maxEngines'`,
  "a higher rate": sql`policy = policy || '{"rateLimitRpm":1000000}'`,
  "more streams": sql`policy = policy || '{"maxOpenStreams":1000000}'`,
  "the policy of another product": sql`(policy, mac) = (select policy, mac from products where slug = 'generous')`,
  "a MAC that was erased": sql`mac = null`,
};

test.each(Object.entries(FORGED_LIMITS))(
  "a product with %s gets no call through, and the change is reported once",
  async (what, forgery) => {
    await api.mutate("products.register", {
      key: ADMIN_KEY,
      input: { slug: "generous", name: "Generous", policy: {} },
    });
    const slug = `limited-${Object.keys(FORGED_LIMITS).indexOf(what)}`;
    const policy = { maxEngines: 1, rateLimitRpm: 100, maxOpenStreams: 1 };
    const { productId, apiKey } = await api.register(slug, { policy });
    const input = { userId: "ada" };
    expect((await api.query("engines.list", { key: apiKey })).status).toBe(200);
    await run(sql`update products set ${forgery} where id = ${productId}`);
    api.ctx.keyStates.clear();
    expect(reasonOf(await api.query("engines.list", { key: apiKey }))).toBe("ROW_TAMPERED");
    expect(reasonOf(await api.mutate("engines.provision", { key: apiKey, input }))).toBe("ROW_TAMPERED");
    await expect.poll(async () => countReports("products", productId)).toBe(1);
  },
);

test("a quota that was forged after the caller was admitted lets no engine in", async () => {
  const { productId } = await api.register("raced", { policy: { maxEngines: 0 } });
  await run(sql`update products set policy = '{}' where id = ${productId}`);
  const call = { ...api.ctx, actor: SYSTEM_ACTOR, requestId: "raced" };
  const provisioned = provisionEngine(call, toCall({ productId }, "ada"));
  await expect(provisioned).rejects.toMatchObject({ reason: "ROW_TAMPERED" });
  await run(sql`update products set policy = '{"maxEngines":0}' where id = ${productId}`);
  const within = provisionEngine(call, toCall({ productId }, "ada"));
  await expect(within).rejects.toMatchObject({ reason: "QUOTA_EXCEEDED" });
});

test("the key of a removed product does not work again when the removal is erased", async () => {
  const { productId, apiKey } = await api.register("removed");
  await api.mutate("products.remove", { key: ADMIN_KEY, input: { productId } });
  api.ctx.keyStates.clear();
  expect(reasonOf(await api.query("engines.list", { key: apiKey }))).toBe("INVALID_KEY");
  await run(sql`update products set deleted_at = null where id = ${productId}`);
  api.ctx.keyStates.clear();
  expect(reasonOf(await api.query("engines.list", { key: apiKey }))).toBe("ROW_TAMPERED");
});

test("a policy that was forged chooses no image, and no operator's call reaches a product by a forged slug", async () => {
  const { productId, apiKey } = await api.register("policed");
  await run(sql`update products set policy = '{"image":"evil:1"}' where id = ${productId}`);
  const provisioned = await api.mutate("engines.provision", { key: apiKey, input: { userId: "ada" } });
  expect(reasonOf(provisioned)).toBe("ROW_TAMPERED");
  const updated = await api.mutate("products.updatePolicy", {
    key: ADMIN_KEY,
    input: { productId, policy: {} },
  });
  expect(reasonOf(updated)).toBe("ROW_TAMPERED");
  await expect.poll(async () => countReports("products", productId)).toBe(1);
  await run(sql`update products set policy = '{}', slug = 'bank' where id = ${productId}`);
  const listed = await api.query("engines.list", { key: ADMIN_KEY, input: { product: "bank" } });
  expect(reasonOf(listed)).toBe("ROW_TAMPERED");
  await run(sql`update products set slug = 'policed' where id = ${productId}`);
  expect((await api.query("engines.list", { key: ADMIN_KEY, input: { product: "policed" } })).status).toBe(
    200,
  );
});

test("a master key makes a valid row: the MAC is all that a forger lacks", async () => {
  const { keysKey, engineId, productId } = await openVictim("insider");
  const sealed = sealEngineKey(api.ctx.keyring, { id: engineId, productId, userId: "ada" }, "insider");
  await run(sql`update engines set key_sealed = ${sealed} where id = ${engineId}`);
  const revealed = await api.mutate("engineKeys.reveal", { key: keysKey, input: { userId: "ada" } });
  expect(revealed.body.result.data.apiKey).toBe("insider");
});
