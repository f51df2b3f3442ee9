import { acme, userId } from "./acme.ts";

/** Next calls this once, when the server starts. */
export async function register(): Promise<void> {
  await acme.engines.ensure({ userId });
}
