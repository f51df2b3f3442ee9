import { createClient, EnginehouseError } from "../client/index.ts";

/** Runs one turn for one user of a product. `key` is the product's platform key. */
export async function runFirstTurn(url: string, key: string, print: (text: string) => void): Promise<void> {
  const client = createClient({ url, key });
  // A second call with the same idempotency key gets the first call's reply, so this function may run again.
  await client.api.engines.provision.mutate({ userId: "ada", idempotencyKey: "engine-of-ada" });

  const turn = client.execute({ userId: "ada", request: { message: "Hello", taskId: "first-thread" } });
  try {
    for await (const event of turn) {
      if (event.type === "text_delta") print(event.data.text);
    }
    print(`\n${(await turn.end).status}\n`);
  } catch (error) {
    if (error instanceof EnginehouseError) print(`\nthe turn did not end well: ${error.reason}\n`);
    else throw error;
  }
  client.close();
}
