import { randomUUID } from "node:crypto";
import { expect, vi } from "vitest";
import { SCOPES } from "../../db/schema.ts";
import type { Scope } from "../../db/platform-keys.ts";
import type { KeyName, Named } from "../../docs/authorisation-table.ts";
import { appRouter } from "../../server/api/routers/router.ts";
import { createKey } from "../../server/keys/key-format.ts";
import { answer } from "../rpc/hostile-engine.ts";
import { ADMIN_KEY, type Api } from "./open-api.ts";

/** A service with one key of every kind, and objects of the product `own` that calls are about. */
export interface Door {
  url: string;
  keys: Readonly<Record<Exclude<KeyName, "enough" | "lacking">, string | undefined>>;
  withScopes(scopes: readonly Scope[]): string;
  /** A key with all scopes but this one. */
  lacking(scope: Scope): string;
  /** Makes the objects that the last call of this kind has used up. */
  prepare(call: string): Promise<void>;
  /** The input that succeeds for the product `own`. Routes take parts of it. */
  toInput(call: string): Record<string, unknown>;
}

export interface Attempt {
  call: string;
  key: string | undefined;
  named: Named;
}

/** `expect.poll` works only within a test. */
const WAIT = { timeout: 30_000, interval: 50 };

// The record is flat and keyed by path, although its type says otherwise.
const procedures = appRouter._def.procedures as unknown as Readonly<
  Record<string, { _def: { type: string } } | undefined>
>;

/** Sends the call. Returns `ok` or the reason of the refusal. */
export async function send(door: Door, { call, key, named }: Attempt): Promise<string> {
  const [method = "", route] = call.split(" ");
  const product: Record<string, string> = named === "none" ? {} : { product: named };
  const authorization: Record<string, string> = key === undefined ? {} : { authorization: `Bearer ${key}` };
  const headers = { ...authorization, "content-type": "application/json" };
  const input = door.toInput(call);
  if (route !== undefined) {
    const path = route.replace(/:(\w+)/g, (_all, name: string) => String(input[name]));
    const query = new URLSearchParams(product).toString();
    const isPost = method === "POST";
    return ask(`${door.url}${path}${query === "" ? "" : `?${query}`}`, {
      method,
      headers: call.endsWith("/execute")
        ? { ...headers, "idempotency-key": String(input["turnId"]) }
        : headers,
      ...(isPost && !call.endsWith("/cancel") && { body: JSON.stringify(input["body"]) }),
    });
  }
  const text = JSON.stringify({ ...input, ...product });
  if (procedures[call]?._def.type === "mutation") {
    return ask(`${door.url}/trpc/${call}`, { method: "POST", headers, body: text });
  }
  return ask(`${door.url}/trpc/${call}?input=${encodeURIComponent(text)}`, { headers });
}

async function ask(url: string, init: RequestInit): Promise<string> {
  const response = await fetch(url, init);
  const text = await response.text();
  const refusal = /event: serialized-error\ndata: (.*)\n/.exec(text)?.[1];
  if (refusal !== undefined) return (JSON.parse(refusal) as { data: { reason: string } }).data.reason;
  if (response.ok) return "ok";
  const { error } = JSON.parse(text) as { error: { reason?: string; data?: { reason: string } } };
  return error.reason ?? error.data?.reason ?? text;
}

const WAITING = "waiting";

/** The part of the door that is made before the keys. */
interface Objects {
  productId: string;
  turnId: string;
  /** A turn that waits for a person's answer. */
  waitingTurnId: string;
  request: { message: string; taskId: string };
  spareProductId: string;
  spareKeyId: string;
  spareOperatorId: string;
}

export async function openDoor(api: Api): Promise<Door> {
  const own = await api.register("own");
  const other = await api.register("other");
  const objects = await makeObjects(api, own);
  const all = (await api.issue(own.productId, { scopes: SCOPES })).apiKey;
  const provisioned = await api.mutate("engines.provision", { key: all, input: { userId: "eve" } });
  await api.mutate("engines.provision", { key: all, input: { userId: "idle" } });
  const issued = new Map<string, string>();
  for (const scopes of listScopeSets()) {
    issued.set(toName(scopes), (await api.issue(own.productId, { scopes })).apiKey);
  }
  const find = (scopes: readonly Scope[]) => (scopes.length === 0 ? all : (issued.get(toName(scopes)) ?? ""));
  return {
    url: api.url,
    withScopes: find,
    lacking: (scope) => find(SCOPES.filter((one) => one !== scope)),
    keys: {
      none: undefined,
      garbage: "' or 1=1 --",
      unknown: createKey("platform").plaintext,
      engine: provisioned.body.result.data.apiKey,
      all,
      foreign: (await api.issue(other.productId, { scopes: SCOPES })).apiKey,
      bootstrap: ADMIN_KEY,
      ...(await makeDeadKeys(api, own.productId)),
      operator: (await issueOperator(api, "on duty")).apiKey,
    },
    prepare: async (call) => prepare(api, { call, objects, key: all }),
    toInput: (call) => toInput(call, objects),
  };
}

/** Each single scope, pairs that a call needs, and all but one. */
function listScopeSets(): Scope[][] {
  const single = SCOPES.map((scope) => [scope]);
  const lacking = SCOPES.map((scope) => SCOPES.filter((one) => one !== scope));
  return [...single, ...lacking, ["turns", "read"]];
}

const toName = (scopes: readonly Scope[]) => [...scopes].sort().join(" ");

async function issueOperator(api: Api, name: string, more = {}): Promise<{ keyId: string; apiKey: string }> {
  const { body } = await api.mutate("operators.issue", { key: ADMIN_KEY, input: { name, ...more } });
  return { keyId: body.result.data.key.keyId, apiKey: body.result.data.apiKey };
}

/** Keys that worked once, and work no more when this returns. */
async function makeDeadKeys(api: Api, productId: string) {
  const removed = await api.register("removed");
  await api.mutate("products.remove", { key: ADMIN_KEY, input: { productId: removed.productId } });
  const revoked = await api.issue(productId, { scopes: SCOPES });
  await api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId: revoked.keyId } });
  const revokedOperator = await issueOperator(api, "gone");
  await api.mutate("operators.revoke", { key: ADMIN_KEY, input: { keyId: revokedOperator.keyId } });
  const expiresAt = new Date(Date.now() + 1_000).toISOString();
  const expired = await api.issue(productId, { scopes: SCOPES, expiresAt });
  const expiredOperator = await issueOperator(api, "late", { expiresAt });
  const reasonOf = async (key: string) =>
    (await api.query("audit.head", { key })).body.error?.data.reason as unknown;
  for (const { apiKey } of [expired, expiredOperator]) {
    await vi.waitFor(async () => expect(await reasonOf(apiKey)).toBe("KEY_EXPIRED"), WAIT);
  }
  return {
    removed: removed.apiKey,
    revoked: revoked.apiKey,
    revokedOperator: revokedOperator.apiKey,
    expired: expired.apiKey,
    expiredOperator: expiredOperator.apiKey,
  };
}

async function makeObjects(api: Api, own: { productId: string; apiKey: string }): Promise<Objects> {
  api.behave("/execute", (response, _request, body) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    if (body.includes(WAITING)) response.write('event: hitl_request\ndata: {"request_id":"q"}\n\n');
    else response.end('event: thread_lifecycle\ndata: {"phase":"completed"}\n\n');
  });
  api.behave("/rpc", answer(200, { result: {} }));
  api.behave("/hitl/respond", answer(200, { status: "resolved", request_id: "q" }));
  await api.mutate("engines.provision", { key: own.apiKey, input: { userId: "ada" } });
  const turnId = randomUUID();
  const request = { message: "hi", taskId: "t" };
  await api.mutate("turns.start", { key: own.apiKey, input: { turnId, userId: "ada", request } });
  const waitingTurnId = randomUUID();
  const waiting = { turnId: waitingTurnId, userId: "ada", request: { message: WAITING, taskId: WAITING } };
  await api.mutate("turns.start", { key: own.apiKey, input: waiting });
  const status = async () =>
    (await api.query("turns.get", { key: own.apiKey, input: { turnId } })).body.result.data.status;
  await vi.waitFor(async () => expect(await status()).toBe("completed"), WAIT);
  const spares = { spareProductId: "", spareKeyId: "", spareOperatorId: "" };
  return {
    productId: own.productId,
    turnId,
    waitingTurnId,
    request,
    ...spares,
    ...(await makeSpares(api, own.productId)),
  };
}

async function makeSpares(api: Api, productId: string) {
  const { productId: spareProductId } = await api.register(`spare-${randomUUID().slice(0, 8)}`);
  const { keyId: spareKeyId } = await api.issue(productId);
  const { keyId: spareOperatorId } = await issueOperator(api, `spare ${randomUUID()}`);
  return { spareProductId, spareKeyId, spareOperatorId };
}

const USING_UP = new Set(["products.remove", "platformKeys.revoke", "operators.revoke"]);

async function prepare(
  api: Api,
  { call, objects, key }: { call: string; objects: Objects; key: string },
): Promise<void> {
  if (USING_UP.has(call)) Object.assign(objects, await makeSpares(api, objects.productId));
  if (call !== "engines.destroy") return;
  await api.mutate("engines.provision", { key, input: { userId: "doomed" } });
}

const DISTURBED_USERS: Readonly<Record<string, string>> = {
  "engines.destroy": "doomed",
  "engines.stop": "idle",
  "engines.restart": "eve",
  "engineKeys.rotate": "eve",
};

function toInput(call: string, objects: Objects): Record<string, unknown> {
  const { productId, turnId, waitingTurnId, request, ...spare } = objects;
  const userId = DISTURBED_USERS[call] ?? "ada";
  switch (call) {
    case "engines.provision":
      return { userId: randomUUID() };
    case "rpc.call":
      return { userId, method: "m" };
    case "rpc.setConfig":
      return { userId, config: {} };
    case "turns.start":
    case "turns.execute":
      return { userId, turnId, request };
    case "POST /v1/engines/:userId/execute":
      return { userId, turnId, body: { message: request.message, task_id: request.taskId } };
    case "turns.respond":
      return { turnId: waitingTurnId, answer: "yes" };
    case "POST /v1/turns/:turnId/respond":
      return { turnId: waitingTurnId, body: { answer: "yes" } };
    case "engines.list":
      return {};
    case "products.register":
      return { slug: `new-${randomUUID().slice(0, 8)}`, name: "New" };
    case "products.get":
    case "platformKeys.list":
      return { productId };
    case "products.updatePolicy":
      return { productId: spare.spareProductId, policy: {} };
    case "products.remove":
      return { productId: spare.spareProductId };
    case "platformKeys.issue":
      return { productId, name: "n" };
    case "platformKeys.revoke":
      return { keyId: spare.spareKeyId };
    case "operators.issue":
      return { name: randomUUID() };
    case "operators.revoke":
      return { keyId: spare.spareOperatorId };
    case "fleet.acceptRuntime":
      return { reason: "a test" };
    default:
      return toSimpleInput(call, { userId, turnId });
  }
}

/** The input of procedures and routes that take a turn's id, a user's id or nothing. */
function toSimpleInput(call: string, { userId, turnId }: { userId: string; turnId: string }) {
  if (/^turns\.(?:get|events|cancel)$|:turnId/.test(call)) return { turnId };
  if (/^(?:engines|engineKeys|rpc|turns)\./.test(call) && call !== "engineKeys.reseal") return { userId };
  return {};
}
