export interface WelcomeInput {
  url: string;
  adminKey: string;
  /** The file that holds the operator key. */
  secretsPath: string;
  /** True only for a terminal: other output may be stored as a log. */
  showsKey: boolean;
}

/** The text that the first start prints once: where the operator key is, and a program to try the service with. */
export function toWelcome({ url, adminKey, secretsPath, showsKey }: WelcomeInput): string {
  return `
Enginehouse is ready at ${url}

The operator key ${showsKey ? `is ${adminKey}. It is shown only now, and kept` : "is kept"} in ${secretsPath}

To register a product and run its first turn, save this as try.ts in this folder. Then run: npx node try.ts

  import { readFileSync } from "node:fs";
  import { createClient } from "./client/index.ts";

  const { adminKey } = JSON.parse(readFileSync(${JSON.stringify(secretsPath)}, "utf8"));
  const operator = createClient({ url: "${url}", key: adminKey });
  // A repeated call with the same idempotency key changes nothing and gets the same answer.
  const acme1 = { slug: "acme", name: "Acme", idempotencyKey: "acme-1" };
  const { apiKey } = await operator.api.products.register.mutate(acme1);
  console.log("the product's key:", apiKey);
  const acme = createClient({ url: "${url}", key: apiKey });
  await acme.api.engines.provision.mutate({ userId: "ada", idempotencyKey: "ada-1" });
  const turn = acme.execute({ userId: "ada", request: { message: "Hello", taskId: "first" } });
  console.log(await turn.text());

`;
}
