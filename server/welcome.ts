/** What a first start shows once: the operator's key, and the lines that do something with it. */
export function toWelcome(url: string, adminKey: string): string {
  return `
Enginehouse is ready at ${url}

The operator's key, shown this once (kept in the data directory, readable by you alone):

  ${adminKey}

Register a product and run its first turn; save as try.ts in this folder, then: npx node try.ts

  import { createClient } from "./client/index.ts";

  const operator = createClient({ url: "${url}", key: "${adminKey}" });
  const { apiKey } = await operator.api.products.register.mutate({ slug: "acme", name: "Acme" });
  const acme = createClient({ url: "${url}", key: apiKey });
  await acme.api.engines.provision.mutate({ userId: "ada" });
  const turn = acme.execute({ userId: "ada", request: { message: "Hello", taskId: "first" } });
  console.log(await turn.text());

`;
}
