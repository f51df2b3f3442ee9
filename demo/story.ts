import { createClient, type Client } from "../client/index.ts";
import { toAuditTable } from "./audit-table.ts";
import { playCutTurn } from "./cut-turn.ts";
import { callDirectly } from "./direct-call.ts";
import type { Screen } from "./screen.ts";

export interface Story {
  screen: Screen;
  url: string;
  adminKey: string;
  /** Pause of the engine before each word. */
  tokenDelayMs: number;
  signal: AbortSignal;
}

/** A product and the client that uses its platform key. */
interface Product {
  productId: string;
  client: Client;
  apiKey: string;
}

const USER = "ada";
const THREAD = "first-thread";

/** Plays the whole story through the client, over HTTP, as a product would. */
export async function playStory(story: Story): Promise<void> {
  const operator = openClient(story, story.adminKey);
  const product = await registerProduct(story, operator);
  const engineKey = await provisionEngine(story, product.client);
  await callRpc(story, product.client);
  await streamTurn(story, product.client);
  await playCutTurn(story, product, { userId: USER, taskId: "second-thread" });
  await recallMemory(story, product.client);
  await rotateKey(story, product.client, engineKey);
  await showAudit(story, product.client);
  await destroyEverything(story, operator, product);
}

function openClient({ url, signal }: Story, key: string): Client {
  const client = createClient({ url, key });
  signal.addEventListener("abort", () => client.close(), { once: true });
  return client;
}

async function registerProduct(story: Story, operator: Client): Promise<Product> {
  const { screen } = story;
  return screen.step("The operator registers a product: products.register", async () => {
    const registered = await operator.api.products.register.mutate({ slug: "acme", name: "Acme Corp" });
    const { productId, slug } = registered.product;
    screen.print(`product ${slug}, ${productId}`);
    screen.print(`its platform key: ${toSecret(registered.apiKey)} (shown only in this reply)`);
    return { productId, apiKey: registered.apiKey, client: openClient(story, registered.apiKey) };
  });
}

async function provisionEngine({ screen }: Story, client: Client): Promise<string> {
  return screen.step(`The product provisions an engine for its user ${USER}: engines.provision`, async () => {
    const { engine, apiKey } = await client.api.engines.provision.mutate({ userId: USER });
    screen.print(`engine ${engine.engineId} is ${engine.status}, generation ${engine.generation}`);
    screen.print(`at ${engine.url}, booted in ${engine.bootMs} ms, key ${toSecret(apiKey)}`);
    return apiKey;
  });
}

async function callRpc({ screen }: Story, { api }: Client): Promise<void> {
  await screen.step("The product calls the engine: rpc.setConfig, getConfig, quotaState", async () => {
    const config = { model: "reference", temperature: 0 };
    await api.rpc.setConfig.mutate({ userId: USER, config });
    screen.print(`set_config   ${JSON.stringify(config)}`);
    const { config: kept, revision } = await api.rpc.getConfig.query({ userId: USER });
    screen.print(`get_config   ${JSON.stringify(kept)}, revision ${String(revision)}`);
    screen.print(`quota_state  ${JSON.stringify(await api.rpc.quotaState.query({ userId: USER }))}`);
  });
}

async function streamTurn({ screen, tokenDelayMs }: Story, client: Client): Promise<void> {
  await screen.step("A turn, streamed while the engine answers: client.execute", async () => {
    const request = {
      message: "Hello engine, please remember that my favourite colour is teal.",
      taskId: THREAD,
      reference: { delayMs: tokenDelayMs },
    };
    screen.print(`${USER}: ${request.message}`);
    const turn = client.execute({ userId: USER, request });
    let events = 0;
    for await (const event of turn) {
      events += 1;
      if (event.type === "text_delta") screen.flow(event.data.text);
    }
    const end = await turn.end;
    screen.print(`${events} events, then the end: ${end.status}`);
  });
}

async function recallMemory({ screen, tokenDelayMs }: Story, client: Client): Promise<void> {
  await screen.step("The engine remembers: a second turn of the first thread", async () => {
    const request = { message: "Which colour was it?", taskId: THREAD, reference: { delayMs: tokenDelayMs } };
    screen.print(`${USER}: ${request.message}`);
    let answer = "";
    for await (const event of client.execute({ userId: USER, request })) {
      if (event.type !== "text_delta") continue;
      answer += event.data.text;
      screen.flow(event.data.text);
    }
    if (!answer.includes("teal")) throw new Error("the engine does not remember the thread");
  });
}

async function rotateKey({ screen }: Story, { api }: Client, oldKey: string): Promise<void> {
  await screen.step("The engine's key is rotated: engineKeys.rotate", async () => {
    const before = await api.engines.get.query({ userId: USER });
    screen.print(`old key, before:  ${await callDirectly(before.url, oldKey)}`);
    const { apiKey, generation } = await api.engineKeys.rotate.mutate({ userId: USER, when: "now" });
    const { url } = await api.engines.get.query({ userId: USER });
    const [old, fresh] = [await callDirectly(url, oldKey), await callDirectly(url, apiKey)];
    screen.print(`old key, after:   ${old}`);
    screen.print(`new key:          ${fresh} (generation ${generation}, same volume)`);
    if (old !== 401 || fresh !== 200)
      throw new Error("after the rotation the engine must refuse the old key and accept the new one");
  });
}

async function showAudit({ screen }: Story, { api }: Client): Promise<void> {
  await screen.step("The product's audit log: audit.verify, audit.list", async () => {
    const { ok, checked, headSeq, headHash } = await api.audit.verify.query({});
    if (!ok) throw new Error("the audit log was changed after it was written");
    screen.print(`${checked} rows, each with the hash of the previous row: verified up to row ${headSeq}`);
    screen.print(`head ${headHash}`);
    const { items } = await api.audit.list.query({ limit: 100 });
    for (const line of toAuditTable(items)) screen.print(line);
  });
}

async function destroyEverything({ screen }: Story, operator: Client, product: Product): Promise<void> {
  await screen.step("The engine and the product are removed: engines.destroy, products.remove", async () => {
    const { engineId } = await product.client.api.engines.destroy.mutate({ userId: USER });
    screen.print(`engine ${engineId} is destroyed: container, volume, port and key`);
    const { productId } = product;
    await operator.api.products.remove.mutate({ productId });
    screen.print(`product ${productId} is removed`);
  });
}

/** The beginning of a key, enough to recognise it. */
function toSecret(key: string): string {
  return `${key.slice(0, 8)}…`;
}
