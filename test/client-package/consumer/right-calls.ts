import {
  createClient,
  EnginehouseError,
  findReason,
  pipeEventStream,
  toEventStream,
  type Client,
  type NodeResponse,
  type TurnEvent,
} from "@enginehouse/client";

/** Uses the package as a caller does. Returns the results, for the test to check. */
export async function makeRightCalls(url: string, key: string, userId: string) {
  const client = createClient({ url, key, retry: { callForMs: 5_000 } });
  const engine = await client.engines.ensure({ userId });
  const status: "running" | "failed" | "stopped" | undefined =
    engine.status === "running" || engine.status === "failed" ? engine.status : undefined;

  const turn = client.execute({ userId, request: { message: "hello", taskId: "first" } });
  let text = "";
  let seqs = 0;
  for await (const event of turn) {
    if (event.seq === seqs + 1) seqs = event.seq;
    text += toText(event);
  }
  const end = await turn.end;

  const subscribed = await readBySubscription(url, key, turn.turnId);
  const served = await serveTurn(client, turn.turnId, end.lastSeq);
  const { result, generation } = await client.api.rpc.call.mutate({
    userId,
    method: "get_config",
    params: {},
  });
  const { revision = 0 } = await client.api.rpc.setConfig.mutate({ userId, config: { model: "reference" } });
  const { items: turns } = await client.api.turns.list.query({ userId });

  // Node must not warn of many concurrent calls.
  await Promise.all(Array.from({ length: 20 }, async () => client.api.engines.get.query({ userId })));

  const refusal: unknown = await client.api.engines.get
    .query({ userId: "nobody" })
    .catch((error: unknown) => error);
  const badTurn: unknown = await client
    .execute({ userId: "nobody", request: { message: "hello", taskId: "first" } })
    .text()
    .catch((error: unknown) => error);

  await client.api.engines.destroy.mutate({ userId, whenBusy: "interrupt" });
  client.close();
  return {
    status,
    text,
    seqs,
    endStatus: end.status,
    lastSeq: end.lastSeq,
    subscribed,
    served,
    hasConfig: typeof result === "object" && result !== null && "config" in result,
    generation,
    revision: revision.toFixed(),
    turns: turns.length,
    reasons: [findReason(refusal), badTurn instanceof EnginehouseError ? badTurn.reason : undefined],
  };
}

function toText(event: TurnEvent): string {
  return event.type === "text_delta" ? event.data.text : "";
}

/** Serves the same turn as a gateway does. The structural types of Node's http need no types of Node. */
async function serveTurn(client: Client, turnId: string, lastSeq: number) {
  const response = await toEventStream(client.follow({ turnId }), { lastEventId: String(lastSeq - 1) });
  const seen: (number | string)[] = [response.status, await response.text()];
  const fake: NodeResponse = {
    destroyed: false,
    writeHead: (status) => void seen.push(status),
    write: () => true,
    end: () => undefined,
    once: () => undefined,
    off: () => undefined,
  };
  const request = { headers: { "last-event-id": String(lastSeq) } };
  await pipeEventStream(client.follow({ turnId, after: 1 }), { request, response: fake });
  return seen;
}

/** Reads the same turn through the plain procedure, which uses tRPC's subscription link over EventSource. */
async function readBySubscription(url: string, key: string, turnId: string): Promise<number> {
  const client = createClient({ urls: [url], key });
  let seqs = 0;
  await new Promise<void>((resolve, reject) => {
    const subscription = client.api.turns.events.subscribe(
      { turnId },
      {
        onData: ({ data }) => {
          seqs += data.events.length;
          if (data.end === undefined) return;
          subscription.unsubscribe();
          resolve();
        },
        onError: reject,
      },
    );
  });
  client.close();
  return seqs;
}
