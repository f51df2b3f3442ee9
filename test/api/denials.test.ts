import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createKey } from "../../server/keys/key-format.ts";
import { ADMIN_KEY, openApi, type Api } from "./open-api.ts";

let api: Api;
beforeAll(async () => {
  api = await openApi();
});
afterAll(async () => api?.[Symbol.asyncDispose]());

interface Row {
  actor: { kind: string; id: string; name: string };
  metadata: { reason: string; count: number; procedure: string; firstAt: string; lastAt: string };
}

/** The rows of denials in a product's chain, or in that of the platform. */
async function listDenials(product?: string): Promise<Row[]> {
  const input = { action: "admission.denied", ...(product && { product }) };
  const { body } = await api.query("audit.list", { key: ADMIN_KEY, input });
  return body.result.data.items;
}

const callOften = async (times: number, key: string, path = "engines.list") =>
  Promise.all(Array.from({ length: times }, () => api.query(path, { key })));

test("refused calls leave one row for each product, key and reason, with their number", async () => {
  const { productId } = await api.register("denied");
  const narrow = await api.issue(productId, { name: "narrow", scopes: ["rpc"] });
  const revoked = await api.issue(productId, { name: "revoked" });
  await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId: revoked.keyId } });
  await callOften(30, narrow.apiKey);
  await callOften(7, revoked.apiKey);
  await callOften(2, narrow.apiKey, "products.list");
  expect(await listDenials("denied")).toEqual([]);
  await api.ctx.denials.write();
  const rows = await listDenials("denied");
  const found = rows.map(({ actor, metadata }) => `${actor.name} ${metadata.reason} ${metadata.count}`);
  expect(found.toSorted()).toEqual(["narrow SCOPE_MISSING 32", "revoked KEY_REVOKED 7"]);
  expect(rows.map(({ actor }) => actor.id).sort()).toEqual([narrow.keyId, revoked.keyId].sort());
  await callOften(3, narrow.apiKey);
  await api.ctx.denials.write();
  await api.ctx.denials.write();
  const counts = (await listDenials("denied")).map(({ metadata }) => metadata.count);
  expect(counts.sort((a, b) => a - b)).toEqual([3, 7, 32]);
});

test("while the database does not take rows, denials are counted on", async () => {
  const { productId } = await api.register("outage");
  const narrow = await api.issue(productId, { scopes: ["rpc"] });
  await callOften(4, narrow.apiKey);
  const over = new AbortController();
  over.abort();
  await api.ctx.denials.write(over.signal);
  await callOften(5, narrow.apiKey);
  await api.ctx.denials.write();
  // The service's own loop may have written in between, so there may be two rows.
  const rows = await listDenials("outage");
  expect(rows.every(({ metadata }) => metadata.reason === "SCOPE_MISSING")).toBe(true);
  expect(rows.reduce((sum, { metadata }) => sum + metadata.count, 0)).toBe(9);
});

// The last test: afterwards the address of these calls has no allowance for keys that the service does not know yet.
test("a flood of made-up keys makes one row for each reason in the chain of the platform", async () => {
  const before = (await listDenials()).length;
  const keys = Array.from({ length: 300 }, (_, index) =>
    index % 2 === 0 ? createKey("platform").plaintext : randomBytes(24).toString("hex"),
  );
  const replies = await Promise.all(keys.map((key) => api.query("engines.list", { key })));
  expect(replies.every(({ status }) => status === 401 || status === 429)).toBe(true);
  await api.ctx.denials.write();
  const rows = (await listDenials()).slice(0, -before || undefined);
  expect(rows.length).toBeLessThanOrEqual(2);
  expect(rows.reduce((sum, { metadata }) => sum + metadata.count, 0)).toBe(300);
  expect(rows.every(({ actor }) => actor.id === "admission")).toBe(true);
});
