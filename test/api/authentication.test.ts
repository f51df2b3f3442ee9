import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { appRouter } from "../../server/api/routers/router.ts";
import { createKey } from "../../server/keys/key-format.ts";
import { SCOPES } from "../../db/schema.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";
import { ADMIN_KEY, type Api, openApi, type Reply } from "./open-api.ts";

/** What each procedure requires: scopes of a platform key, an operator key, or nothing. */
const NEEDS = {
  "engines.provision": "lifecycle",
  "engines.admit": "turns",
  "engines.get": "read",
  "engines.list": "read",
  "engines.start": "lifecycle",
  "engines.stop": "lifecycle",
  "engines.restart": "lifecycle",
  "engines.destroy": "lifecycle",
  "engineKeys.rotate": "lifecycle",
  "engineKeys.reveal": "keys",
  "rpc.call": "rpc",
  "rpc.getConfig": "rpc",
  "rpc.setConfig": "rpc",
  "rpc.reload": "rpc",
  "rpc.quotaState": "rpc",
  "rpc.cacheState": "rpc",
  "turns.start": "turns",
  "turns.execute": ["turns", "read"],
  "turns.events": "read",
  "turns.get": "read",
  "turns.list": "read",
  "turns.cancel": "turns",
  "turns.respond": "turns",
  "products.register": "operator",
  "products.get": "operator",
  "products.list": "operator",
  "products.updatePolicy": "operator",
  "products.remove": "operator",
  "platformKeys.issue": "operator",
  "platformKeys.list": "operator",
  "platformKeys.revoke": "operator",
  "operators.issue": "operator",
  "operators.list": "operator",
  "operators.revoke": "operator",
  "engineKeys.reseal": "operator",
  "fleet.acceptRuntime": "operator",
  "audit.head": "read",
  "audit.list": "read",
  "audit.verify": "read",
  "health.live": "nothing",
  "health.ready": "nothing",
} as const;
const keyed = Object.entries(NEEDS).filter(([, need]) => need !== "nothing");
const scoped = keyed.filter(([, need]) => need !== "operator");

let api: Api;
let product: { productId: string; apiKey: string };
beforeAll(async () => {
  api = await openApi();
  product = await api.register("guarded");
});
afterAll(async () => {
  await api[Symbol.asyncDispose]();
});

// The record is flat and keyed by path, although its type says otherwise.
const procedures = appRouter._def.procedures as unknown as Readonly<
  Record<string, { _def: { type: string } }>
>;

/** The refusal of any kind of procedure. A subscription sends it as an event. */
async function refusalOf(path: string, key: string | undefined): Promise<Reply["body"]> {
  const options = key === undefined ? {} : { key };
  switch (procedures[path]?._def.type) {
    case "mutation":
      return (await api.mutate(path, options)).body.error;
    case "query":
      return (await api.query(path, options)).body.error;
    default:
      for await (const { event, data } of api.subscribe(path, options)) {
        if (event === "serialized-error") return data;
      }
      return undefined;
  }
}

test("the table of requirements names every procedure", () => {
  expect(Object.keys(procedures).sort()).toEqual(Object.keys(NEEDS).sort());
});

test("every query and mutation has an output schema", () => {
  for (const [path, { _def }] of Object.entries(procedures)) {
    if (_def.type !== "subscription") expect(_def, path).toHaveProperty("output");
  }
});

describe("every procedure that needs a key refuses", () => {
  const unknown = createKey("platform").plaintext;
  const bad: [string, () => string | undefined][] = [
    ["no key", () => undefined],
    ["a well-formed platform key that was never issued", () => unknown],
    ["a key that was cut short", () => product.apiKey.slice(0, -1)],
    ["a key with a changed character", () => `${product.apiKey.slice(0, 10)}_${product.apiKey.slice(11)}`],
    ["an engine key", () => createKey("engine").plaintext],
    ["an operator key that was never issued", () => createKey("operator").plaintext],
    ["the operator key cut short", () => ADMIN_KEY.slice(0, -1)],
    ["a text that is no key", () => "' or 1=1 --"],
  ];
  test.each(bad)("%s", async (_what, toKey) => {
    const key = toKey();
    for (const [path] of keyed) {
      const { data } = await refusalOf(path, key);
      expect(data, path).toMatchObject({ reason: "INVALID_KEY", httpStatus: 401, path });
      if (key !== undefined) expect(JSON.stringify(data)).not.toContain(key);
    }
  });

  test("a revoked key and an expired key", async () => {
    const revoked = await api.issue(product.productId);
    await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId: revoked.keyId } });
    const expiresAt = new Date(Date.now() + 60_000).toISOString();
    const expired = await api.issue(product.productId, { expiresAt });
    expect((await api.query("engines.list", { key: expired.apiKey })).status).toBe(200);
    await shiftDatabaseClock(api.databaseUrl, "2 minutes");
    try {
      await expect
        .poll(async () => (await refusalOf("engines.list", expired.apiKey))?.data.reason)
        .toBe("KEY_EXPIRED");
      for (const [path] of keyed) {
        expect((await refusalOf(path, revoked.apiKey)).data.reason, path).toBe("KEY_REVOKED");
        expect((await refusalOf(path, expired.apiKey)).data.reason, path).toBe("KEY_EXPIRED");
      }
    } finally {
      await shiftDatabaseClock(api.databaseUrl, "0");
    }
  });
});

describe("a platform key", () => {
  test("may not call the procedures of operators", async () => {
    for (const [path, need] of keyed) {
      if (need !== "operator") continue;
      expect((await refusalOf(path, product.apiKey)).data, path).toMatchObject({
        reason: "SCOPE_MISSING",
        httpStatus: 403,
      });
    }
  });

  test.each(SCOPES)(
    "without the scope %s is refused exactly by the procedures that need it",
    async (scope) => {
      const scopes = SCOPES.filter((other) => other !== scope);
      const { apiKey } = await api.issue(product.productId, { scopes });
      for (const [path, need] of scoped) {
        const reason = (await refusalOf(path, apiKey))?.data.reason;
        if (([] as string[]).concat(need).includes(scope)) expect(reason, path).toBe("SCOPE_MISSING");
        else expect(reason, path).not.toBe("SCOPE_MISSING");
      }
    },
  );

  test("has by default every scope except keys", async () => {
    for (const [path, need] of scoped) {
      const reason = (await refusalOf(path, product.apiKey))?.data.reason;
      if (need === "keys") expect(reason, path).toBe("SCOPE_MISSING");
      else expect(reason, path).not.toBe("SCOPE_MISSING");
    }
  });
});

test("health needs no key", async () => {
  expect((await api.query("health.live")).body.result.data.ok).toBe(true);
  const ready = async () => (await api.query("health.ready")).body.result.data;
  // Poll: on a loaded machine a check may take too long, and then counts as failed.
  await expect.poll(ready).toEqual({
    ok: true,
    subsystems: {
      process: "ok",
      database: "ok",
      migrations: "ok",
      runtime: "ok",
      log: "ok",
      dataDir: "ok",
    },
  });
});

test("a key in another scheme than Bearer is refused", async () => {
  const headers = { authorization: `Basic ${product.apiKey}` };
  expect((await api.query("engines.list", { headers })).body.error.data.reason).toBe("INVALID_KEY");
});
