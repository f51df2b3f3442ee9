/** What a first start shows once: the operator's key, and the lines that do something with it. */
export function toWelcome(url: string, adminKey: string): string {
  return `
Enginehouse is ready at ${url}

The operator's key, shown this once (kept in the data directory, readable by you alone):

  ${adminKey}

Register a product and run its first turn; save as try.ts in this folder, then: npx node try.ts

  import { createClient } from "./client/index.ts";

  const operator = createClient({ url: "${url}", key: "${adminKey}" });
  // With an idempotency key a call may be made again: it does nothing more and answers the same.
  const acme1 = { slug: "acme", name: "Acme", idempotencyKey: "acme-1" };
  const { apiKey } = await operator.api.products.register.mutate(acme1);
  console.log("the product's key:", apiKey);
  const acme = createClient({ url: "${url}", key: apiKey });
  await acme.api.engines.provision.mutate({ userId: "ada", idempotencyKey: "ada-1" });
  const turn = acme.execute({ userId: "ada", request: { message: "Hello", taskId: "first" } });
  console.log(await turn.text());

`;
}
