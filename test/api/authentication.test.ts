import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { appRouter } from "../../server/api/routers/router.ts";
import { createKey } from "../../server/keys/key-format.ts";
import { CALLS, toScopes } from "../../docs/authorisation-table.ts";
import { ADMIN_KEY, type Api, openApi, type Reply } from "./open-api.ts";

const keyed = Object.entries(CALLS)
  .filter(([call, [need]]) => !call.includes(" ") && need !== "nothing")
  .map(([path, [need]]) => ({ path, scopes: toScopes(need), isForOperators: need === "operator" }));
const scoped = keyed.filter(({ isForOperators }) => !isForOperators);

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
    for (const { path } of keyed) {
      const { data } = await refusalOf(path, key);
      expect(data, path).toMatchObject({ reason: "INVALID_KEY", httpStatus: 401, path });
      if (key !== undefined) expect(JSON.stringify(data)).not.toContain(key);
    }
  });
});

test("a platform key has by default every scope except keys", async () => {
  for (const { path, scopes } of scoped) {
    const reason = (await refusalOf(path, product.apiKey))?.data.reason;
    if (scopes.includes("keys")) expect(reason, path).toBe("SCOPE_MISSING");
    else expect(reason, path).not.toBe("SCOPE_MISSING");
  }
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
