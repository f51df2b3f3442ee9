import { randomUUID } from "node:crypto";
import { expect, vi } from "vitest";
import { ADMIN_KEY, type Api } from "../api/open-api.ts";

export interface FireSite {
  /** A key of the product that has engines. */
  key: string;
  /** A turn that has ended. */
  turnId: string;
  /** A product that tests may change and remove, and one of its keys. */
  spareId: string;
  spareKeyId: string;
  /** An operator key that no test uses. */
  spareOperatorId: string;
}

/** A valid input with all fields of the procedure, and a key for it. The call disturbs no other test. */
export type ToInput = (site: FireSite) => { key: string; input: object };

const product =
  (input: object): ToInput =>
  (site) => ({ key: site.key, input });
const operator =
  (toInput: (site: FireSite) => object): ToInput =>
  (site) => ({ key: ADMIN_KEY, input: toInput(site) });

const idempotencyKey = "again";
const deadlineMs = 10_000;
const interrupting = { userId: "restless", whenBusy: "interrupt", deadlineMs, idempotencyKey };
const page = { cursor: Buffer.from(randomUUID()).toString("base64url"), limit: 5 };
const policy = {
  maxEngines: 3,
  maxLiveTurns: 10,
  maxLiveTurnsPerKey: 5,
  maxOpenStreams: 10,
  maxOpenStreamsPerKey: 5,
  turnLogBytesPerHour: 1_000_000,
  rateLimitRpm: 60,
  turnLimitRpm: 30,
  idle: { pauseAfterS: 60, stopAfterS: 600 },
  resources: { memoryMb: 256, cpus: 1, pids: 64, readOnly: false },
  image: "reference:1.0.0",
};
const request = {
  message: "hi",
  media: [{ kind: "image", url: "x" }],
  direct: true,
  editMessageId: "e",
  retryMessageId: "r",
  more: { of: ["it"] },
};

export const PROCEDURE_INPUTS: Readonly<Record<string, ToInput>> = {
  "engines.provision": product({
    userId: "fresh",
    image: "reference:1.0.0",
    wait: true,
    deadlineMs,
    idempotencyKey,
  }),
  "engines.admit": product({ userId: "ada", autoProvision: true, autoWake: true }),
  "engines.get": product({ userId: "ada" }),
  "engines.list": product({ status: "running", ...page }),
  "engines.start": product({ userId: "restless", deadlineMs, idempotencyKey }),
  "engines.stop": product({ ...interrupting, graceSeconds: 1 }),
  "engines.restart": product(interrupting),
  "engines.destroy": product({ ...interrupting, userId: "doomed" }),
  "engineKeys.rotate": product({ userId: "restless", when: "now", deadlineMs, idempotencyKey }),
  "engineKeys.reveal": operator(() => ({ userId: "ada", product: "fire" })),
  "rpc.call": product({
    userId: "ada",
    method: "m",
    params: { a: [1, { b: null }] },
    timeoutMs: 5_000,
    autoWake: true,
    expectGeneration: 1,
    idempotencyKey,
  }),
  "rpc.getConfig": product({ userId: "ada" }),
  "rpc.setConfig": product({ userId: "ada", config: { model: { name: "x" } }, idempotencyKey }),
  "rpc.reload": product({ userId: "ada", idempotencyKey }),
  "rpc.quotaState": product({ userId: "ada" }),
  "rpc.cacheState": product({ userId: "ada" }),
  "turns.start": ({ key }) => {
    const turnId = randomUUID();
    const input = { turnId, userId: "ada", request: { ...request, taskId: turnId }, autoWake: true };
    return { key, input: { ...input, autoProvision: false, expectGeneration: 1 } };
  },
  "turns.execute": ({ key }) => {
    const turnId = randomUUID();
    const input = { turnId, userId: "ada", request: { ...request, taskId: turnId }, autoWake: true };
    return { key, input: { ...input, autoProvision: false, expectGeneration: 1, lastEventId: "0" } };
  },
  "turns.events": ({ key, turnId }) => ({ key, input: { turnId, lastEventId: "1" } }),
  "turns.get": ({ key, turnId }) => ({ key, input: { turnId } }),
  "turns.list": product({ userId: "ada", ...page }),
  "turns.cancel": ({ key, turnId }) => ({ key, input: { turnId } }),
  // Not with the turn's id, because the procedure takes one or the other.
  "turns.respond": product({
    turnId: undefined,
    userId: "ada",
    taskId: "t",
    answer: "yes",
    feedback: "be brief",
    contentBlocks: [{ type: "text" }],
    requestId: undefined,
    idempotencyKey,
  }),
  "products.register": operator(() => ({ slug: "new", name: "New", policy, idempotencyKey })),
  "products.get": operator(({ spareId }) => ({ productId: spareId })),
  "products.list": operator(() => page),
  "products.updatePolicy": operator(({ spareId }) => ({ productId: spareId, policy, idempotencyKey })),
  "products.remove": operator(({ spareId }) => ({
    productId: spareId,
    destroyEngines: true,
    idempotencyKey,
  })),
  "platformKeys.issue": operator(({ spareId }) => ({
    productId: spareId,
    name: "n",
    scopes: ["read", "rpc"],
    expiresAt: "2100-01-01T00:00:00Z",
    idempotencyKey,
  })),
  "platformKeys.list": operator(({ spareId }) => ({ productId: spareId, ...page })),
  "platformKeys.revoke": operator(({ spareId, spareKeyId }) => ({
    keyId: spareKeyId,
    productId: spareId,
    graceSeconds: 5,
    idempotencyKey,
  })),
  "operators.issue": operator(() => ({ name: "new", expiresAt: "2100-01-01T00:00:00Z", idempotencyKey })),
  "operators.list": operator(() => page),
  "operators.revoke": operator(({ spareOperatorId }) => ({
    keyId: spareOperatorId,
    graceSeconds: 5,
    idempotencyKey,
  })),
  "engineKeys.reseal": operator(() => ({ batch: 10, idempotencyKey })),
  "fleet.acceptRuntime": operator(() => ({ reason: "the daemon was replaced", idempotencyKey })),
  "audit.list": product({ userId: "ada", action: "engine.provisioned", fromSeq: 1, ...page }),
  "audit.head": product({}),
  "audit.verify": product({ fromSeq: 1, toSeq: 5, knownHead: { seq: 0, hash: "0".repeat(64) } }),
  "health.live": product({}),
  "health.ready": product({}),
};

export async function openFireSite(api: Api): Promise<FireSite> {
  const { apiKey: key } = await api.register("fire");
  const spare = await api.register("spare");
  const { keyId: spareKeyId } = await api.issue(spare.productId);
  const spareOperator = await api.mutate("operators.issue", { key: ADMIN_KEY, input: { name: "spare" } });
  const spareOperatorId = spareOperator.body.result.data.key.keyId;
  for (const userId of ["ada", "restless", "doomed"]) {
    await api.mutate("engines.provision", { key, input: { userId } });
  }
  api.behave("/execute", (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end('event: thread_lifecycle\ndata: {"phase":"completed"}\n\n');
  });
  const turnId = randomUUID();
  await api.mutate("turns.start", {
    key,
    input: { turnId, userId: "ada", request: { message: "hi", taskId: "t" } },
  });
  const status = async () =>
    (await api.query("turns.get", { key, input: { turnId } })).body.result.data.status;
  await vi.waitFor(async () => expect(await status()).toBe("completed"), { timeout: 30_000 });
  return { key, turnId, spareId: spare.productId, spareKeyId, spareOperatorId };
}
