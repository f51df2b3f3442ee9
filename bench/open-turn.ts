import { toExecuteBody, type Load } from "./load.ts";
import { readStream, type StreamReading } from "./read-stream.ts";
import type { Product, Service } from "./service.ts";
import { USER } from "./user.ts";

export interface TurnContext {
  service: Pick<Service, "url">;
  product: Product;
  signal: AbortSignal;
  onPiece?: (text: string) => void;
}

/** Starts a turn and reads it as the client does, but without parsing. */
export async function openTurn(ctx: TurnContext, load: Load): Promise<StreamReading> {
  return followTurn(ctx, await startTurn(ctx, load));
}

/** Returns the turn's id. */
export async function startTurn({ product, signal }: TurnContext, load: Load): Promise<string> {
  const turnId = crypto.randomUUID();
  const request = { message: "go", taskId: turnId, load };
  await product.client.api.turns.start.mutate({ turnId, userId: USER, request }, { signal });
  return turnId;
}

export function followTurn(
  { service, product, signal, onPiece }: TurnContext,
  turnId: string,
): StreamReading {
  return readStream({
    url: `${service.url}/trpc/turns.events`,
    method: "POST",
    headers: {
      accept: "text/event-stream",
      "content-type": "application/json",
      authorization: `Bearer ${product.apiKey}`,
    },
    body: JSON.stringify({ turnId }),
    signal,
    onPiece,
  });
}

/** Starts a turn and reads it over the raw route, in one request. */
export function openRawTurn({ service, product, signal, onPiece }: TurnContext, load: Load): StreamReading {
  return readStream({
    url: `${service.url}/v1/engines/${USER}/execute`,
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${product.apiKey}` },
    body: toExecuteBody(load),
    signal,
    onPiece,
  });
}

export function followRawTurn({ service, product, signal }: TurnContext, turnId: string): StreamReading {
  return readStream({
    url: `${service.url}/v1/turns/${turnId}/events`,
    method: "GET",
    headers: { authorization: `Bearer ${product.apiKey}` },
    signal,
  });
}
