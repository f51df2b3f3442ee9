import type { Load } from "./load.ts";
import { readStream, type StreamReading } from "./read-stream.ts";
import type { Product, Service } from "./service.ts";
import { USER } from "./user.ts";

export interface TurnPlace {
  service: Pick<Service, "url">;
  product: Product;
  signal: AbortSignal;
}

/** Starts a turn and reads it as the client does, but for the parsing. */
export async function openTurn(place: TurnPlace, load: Load): Promise<StreamReading> {
  return followTurn(place, await startTurn(place, load));
}

/** Answers its id. */
export async function startTurn({ product, signal }: TurnPlace, load: Load): Promise<string> {
  const turnId = crypto.randomUUID();
  const request = { message: "go", taskId: turnId, load };
  await product.client.api.turns.start.mutate({ turnId, userId: USER, request }, { signal });
  return turnId;
}

export function followTurn({ service, product, signal }: TurnPlace, turnId: string): StreamReading {
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
  });
}
