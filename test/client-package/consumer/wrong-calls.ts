import { createClient, findReason, type Client, type TurnEvent } from "@enginehouse/client";

/** The compiler must refuse each of these calls: `@ts-expect-error` without an error is an error. */
export function makeWrongOptions() {
  const url = "http://127.0.0.1:1";
  // @ts-expect-error -- no key
  createClient({ url });
  // @ts-expect-error -- no address
  createClient({ key: "k" });
  // @ts-expect-error -- two addresses
  createClient({ key: "k", url, urls: [url] });
  // @ts-expect-error -- no such option
  createClient({ key: "k", url, timeout: 1 });
  // @ts-expect-error -- milliseconds are a number
  createClient({ key: "k", url, retry: { callForMs: "5s" } });
}

export async function makeWrongCalls({ api }: Client) {
  // @ts-expect-error -- no such router
  await api.engine.get.query({ userId: "ada" });
  // @ts-expect-error -- no such procedure
  await api.engines.fetch.query({ userId: "ada" });
  // @ts-expect-error -- a query is not a mutation
  await api.engines.get.mutate({ userId: "ada" });
  // @ts-expect-error -- a mutation is not a query
  await api.engines.stop.query({ userId: "ada" });
  // @ts-expect-error -- no input
  await api.engines.get.query();
  // @ts-expect-error -- no userId
  await api.engines.get.query({});
  // @ts-expect-error -- userId is text
  await api.engines.get.query({ userId: 1 });
  // @ts-expect-error -- misspelled
  await api.engines.provision.mutate({ userId: "ada", idempotenceKey: "k" });
  // @ts-expect-error -- no such way
  await api.engines.stop.mutate({ userId: "ada", whenBusy: "maybe" });
  // @ts-expect-error -- no such scope
  await api.platformKeys.issue.mutate({ product: "acme", scopes: ["everything"] });
  // @ts-expect-error -- no name
  await api.products.register.mutate({ slug: "acme" });
  // @ts-expect-error -- params are an object
  await api.rpc.call.mutate({ userId: "ada", method: "get_config", params: "none" });
  // @ts-expect-error -- `mutate` takes one input
  await api.rpc.call.call({ userId: "ada", method: "get_config" });
}

export async function misreadResults({ api }: Client) {
  const engine = await api.engines.get.query({ userId: "ada" });
  // @ts-expect-error -- no such status
  if (engine.status === "flying") return;
  // @ts-expect-error -- may be null
  engine.url.startsWith("http");
  // @ts-expect-error -- no such field
  String(engine.apiKey);
  const answer = await api.rpc.call.mutate({ userId: "ada", method: "get_config" });
  // @ts-expect-error -- an engine's answer is unknown
  String(answer.result.config);
  // @ts-expect-error -- a number, if the engine counts it
  (await api.rpc.quotaState.query({ userId: "ada" })).turns?.trim();
  // @ts-expect-error -- a batch has several events
  api.turns.events.subscribe({ turnId: "t" }, { onData: ({ data }) => String(data.event) });
}

export async function misuseTurns(client: Client) {
  // @ts-expect-error -- no thread
  client.execute({ userId: "ada", request: { message: "hello" } });
  // @ts-expect-error -- a signal is no controller
  client.execute({ userId: "ada", request: { message: "m", taskId: "t" }, signal: new AbortController() });
  const turn = client.execute({ userId: "ada", request: { message: "hello", taskId: "first" } });
  // @ts-expect-error -- read-only
  turn.turnId = "another";
  // @ts-expect-error -- a turn is read asynchronously
  for (const event of turn) String(event);
  // @ts-expect-error -- no such end
  if ((await turn.end).status === "streaming") return;
}

export function misreadEvents(event: TurnEvent, error: unknown) {
  // @ts-expect-error -- the type of the event is not narrowed
  String(event.data.text);
  // @ts-expect-error -- misspelled
  if (event.type === "text_dleta") return;
  // @ts-expect-error -- text has no number in it
  if (event.type === "text_delta") event.data.text.toFixed();
  // @ts-expect-error -- a tool's output is unknown
  if (event.type === "tool_result") String(event.data.output.length);
  // @ts-expect-error -- no such reason
  if (findReason(error) === "NO_LUCK") return;
}
