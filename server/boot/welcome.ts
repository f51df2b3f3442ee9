export interface WelcomeInput {
  url: string;
  adminKey: string;
  /** The file that keeps it. */
  secretsPath: string;
  /** Whether a person looks on: what is not a terminal may be a log. */
  showsKey: boolean;
}

/** What a first start shows once: where the operator's key is, and the lines that do something with it. */
export function toWelcome({ url, adminKey, secretsPath, showsKey }: WelcomeInput): string {
  return `
Enginehouse is ready at ${url}

The operator's key ${showsKey ? `is ${adminKey}, shown this once, and` : "is"} kept in ${secretsPath}

Register a product and run its first turn; save as try.ts in this folder, then: npx node try.ts

  import { readFileSync } from "node:fs";
  import { createClient } from "./client/index.ts";

  const { adminKey } = JSON.parse(readFileSync(${JSON.stringify(secretsPath)}, "utf8"));
  const operator = createClient({ url: "${url}", key: adminKey });
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
