import { randomBytes, randomUUID } from "node:crypto";
import { expect } from "vitest";
import { generateMasterKeys } from "../../server/keys/keyring.ts";
import { appRouter } from "../../server/api/routers/router.ts";
import { ADMIN_KEY as DOUBLE_KEY } from "../api/open-api.ts";
import { PROCEDURE_INPUTS, type FireSite } from "./procedure-inputs.ts";

/** Secrets of every kind, by what they are. Each is a text that occurs nowhere else. */
export type Canaries = Map<string, string>;

const toCanary = () => `canary${randomBytes(16).toString("hex")}`;

/** The canaries that exist before the service starts. The keys that it makes are added later. */
export function makeCanaries(): Canaries & { masterKeys: string } {
  const masterKeys = generateMasterKeys();
  const keys = ["bootstrap key", "provider key", "cookie", "header", "basic authorization", "mistaken query"];
  const contents = ["turn content", "person's answer", "rpc params", "config"];
  const canaries: Canaries = new Map([...keys, ...contents].map((name) => [name, toCanary()]));
  canaries.set("master key", masterKeys.split(":")[1] ?? "");
  canaries.set("unknown key", `ehp_${toCanary()}`);
  return Object.assign(canaries, { masterKeys });
}

export interface LeakSite {
  url: string;
  canaries: Canaries;
  /** Bodies of failed calls. */
  refusals: string[];
  /** The paths that answered with success. */
  accepted: Set<string>;
}

// The record is flat and keyed by path, although its type says otherwise.
const procedures = appRouter._def.procedures as unknown as Readonly<
  Record<string, { _def: { type: string } } | undefined>
>;

const of = (site: LeakSite, name: string) => site.canaries.get(name) ?? "";

interface Sent {
  status: number;
  // Any JSON: each caller knows what it expects.
  // oxlint-disable-next-line typescript/no-explicit-any
  body: any;
}

/** Sends with a secret in every place where a client may put one. */
async function sendTo(site: LeakSite, path: string, init: RequestInit & { key: string }): Promise<Sent> {
  const response = await fetch(`${site.url}${path}`, {
    ...init,
    headers: {
      authorization: init.key.startsWith("Basic") ? init.key : `Bearer ${init.key}`,
      "content-type": "application/json",
      cookie: `session=${of(site, "cookie")}`,
      "x-api-key": of(site, "header"),
      // A request id goes into the log, unless it is a key that was sent there by mistake.
      ...(init.key.startsWith("ehp_") && { "x-request-id": init.key.slice(0, 64) }),
      ...(init.headers as Record<string, string> | undefined),
    },
  });
  const text = await response.text();
  const isRefused = !response.ok || text.includes("event: serialized-error");
  if (isRefused) site.refusals.push(text);
  else site.accepted.add(path.replace(/\?.*/, ""));
  return { status: response.status, body: text.startsWith("{") ? JSON.parse(text) : text };
}

export async function call(
  site: LeakSite,
  path: string,
  more: { key: string; input: unknown },
): Promise<Sent> {
  const text = JSON.stringify(more.input);
  const isPost = procedures[path]?._def.type === "mutation";
  if (isPost) return sendTo(site, `/trpc/${path}`, { key: more.key, method: "POST", body: text });
  return sendTo(site, `/trpc/${path}?input=${encodeURIComponent(text)}`, { key: more.key });
}

/** Registers products, and makes one engine and one turn. Notes each new key as a canary. */
export async function furnish(site: LeakSite): Promise<FireSite> {
  const key = of(site, "bootstrap key");
  const register = async (slug: string) => {
    const { body } = await call(site, "products.register", {
      key,
      input: { slug, name: slug, idempotencyKey: slug },
    });
    site.canaries.set(`platform key of ${slug}`, body.result.data.apiKey);
    return {
      productId: body.result.data.product.productId as string,
      key: body.result.data.apiKey as string,
    };
  };
  const fire = await register("fire");
  const spare = await register("spare");
  const issued = await call(site, "platformKeys.issue", {
    key,
    input: { productId: spare.productId, name: "n" },
  });
  site.canaries.set("issued platform key", issued.body.result.data.apiKey);
  const operator = await call(site, "operators.issue", { key, input: { name: "spare" } });
  site.canaries.set("operator key", operator.body.result.data.apiKey);
  for (const userId of ["ada", "restless", "doomed"]) {
    const input = { userId, idempotencyKey: userId };
    const { body } = await call(site, "engines.provision", { key: fire.key, input });
    site.canaries.set(`engine key of ${userId}`, body.result.data.apiKey);
  }
  const turnId = randomUUID();
  const request = { message: of(site, "turn content"), taskId: "first" };
  await call(site, "turns.start", { key: fire.key, input: { turnId, userId: "ada", request } });
  await answerQuestion(site, fire.key);
  return {
    key: fire.key,
    turnId,
    spareId: spare.productId,
    spareKeyId: issued.body.result.data.key.keyId,
    spareOperatorId: operator.body.result.data.key.keyId,
  };
}

/** Answers a question of the engine. The answer then is in the turn's events. */
async function answerQuestion(site: LeakSite, key: string): Promise<void> {
  const turnId = randomUUID();
  const request = { message: of(site, "turn content"), taskId: "asked", reference: { askHuman: true } };
  await call(site, "turns.start", { key, input: { turnId, userId: "ada", request } });
  const input = { turnId, answer: of(site, "person's answer"), idempotencyKey: "answered" };
  await expect.poll(async () => (await call(site, "turns.respond", { key, input })).status).toBe(200);
  await call(site, "turns.events", { key, input: { turnId } });
}

/** Calls every procedure: with a good input, with an unknown key, and with inputs that are refused. */
export async function callEverything(site: LeakSite, fire: FireSite): Promise<void> {
  const last = ["products.remove", "engines.destroy"];
  const paths = Object.keys(PROCEDURE_INPUTS).filter((path) => !last.includes(path));
  for (const path of [...paths, ...last]) {
    const good = PROCEDURE_INPUTS[path]?.(fire) ?? { key: "", input: {} };
    const key = good.key === DOUBLE_KEY ? of(site, "bootstrap key") : good.key;
    const idempotencyKey = `again-${path}`;
    const input = plant(site, good.input);
    // The other engine is stopped by then.
    if (path === "engines.restart") input["userId"] = "ada";
    const keyed = Object.hasOwn(good.input, "idempotencyKey") ? { ...input, idempotencyKey } : input;
    for (const round of [1, 2]) {
      const { body } = await call(site, path, { key, input: keyed });
      const made: unknown = body?.result?.data?.apiKey;
      if (typeof made === "string") site.canaries.set(`key ${round} of ${path}`, made);
    }
    await call(site, path, { key: of(site, "unknown key"), input: keyed });
    await call(site, path, { key: `Basic ${of(site, "basic authorization")}`, input: keyed });
    await call(site, path, { key, input: { ...keyed, apiKey: fire.key, unknown: of(site, "config") } });
    await call(site, path, { key, input: [fire.key, of(site, "turn content")] });
    await call(site, path, {
      key,
      input: { ...keyed, userId: { nested: of(site, "config") }, turnId: fire.key },
    });
  }
}

/** Puts secrets into the fields that hold them. */
function plant(site: LeakSite, input: object): Record<string, unknown> {
  // A cursor of no list would be refused, and so would the generation of an engine that was restarted meanwhile.
  const { cursor: _cursor, expectGeneration: _generation, ...planted } = input as Record<string, unknown>;
  const secrets: Record<string, unknown> = {
    params: { secret: of(site, "rpc params") },
    config: { secret: of(site, "config") },
    answer: of(site, "person's answer"),
    feedback: of(site, "person's answer"),
    contentBlocks: [{ text: of(site, "person's answer") }],
  };
  for (const name of Object.keys(secrets)) if (name in planted) planted[name] = secrets[name];
  if ("request" in planted) {
    const taskId = randomUUID();
    planted["request"] = { message: of(site, "turn content"), taskId, note: of(site, "turn content") };
    delete planted["lastEventId"];
  }
  if ("method" in planted) planted["method"] = "get_config";
  return planted;
}

/** The raw routes, with good and bad requests, and paths that do not exist. */
export async function callRoutes(site: LeakSite, { key, turnId }: FireSite): Promise<void> {
  const secret = of(site, "mistaken query");
  const body = JSON.stringify({ message: of(site, "turn content"), task_id: randomUUID() });
  const answer = JSON.stringify({ answer: of(site, "person's answer") });
  for (const by of [key, of(site, "unknown key"), `Basic ${of(site, "basic authorization")}`]) {
    for (const query of ["", `?key=${secret}`, `?apiKey=${key}&product=${secret}`]) {
      const post = async (path: string, text?: string) =>
        sendTo(site, path + query, { key: by, method: "POST", ...(text !== undefined && { body: text }) });
      await post("/v1/engines/ada/execute", body);
      await post("/v1/engines/ada/execute", `${body}}`);
      await post(`/v1/turns/${turnId}/respond`, answer);
      await post(`/v1/turns/${turnId}/cancel`);
      await post(`/v1/turns/${turnId}/cancel`, answer);
      for (const path of [
        `/v1/turns/${turnId}/events`,
        "/v1/openapi.json",
        "/healthz",
        "/readyz",
        "/nowhere",
      ]) {
        await sendTo(site, path + query, { key: by });
      }
    }
  }
  await sendTo(site, `/v1/turns/${key}/events`, { key });
  await sendTo(site, `/trpc/${key}`, { key });
  await sendTo(site, "/trpc/engines.get,engines.list?batch=1", { key });
}
