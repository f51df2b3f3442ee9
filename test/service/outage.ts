import { expect } from "vitest";
import { ADMIN_KEY, callProcedure } from "./spawn-service.ts";

export interface Caller {
  url: string;
  key: string;
}

/** A product whose user has a running engine. */
export async function openProduct(url: string, userId: string): Promise<Caller> {
  const registered = await callProcedure({ url, key: ADMIN_KEY }, "products.register", {
    slug: "acme",
    name: "Acme",
  });
  const caller = { url, key: String(registered.data["apiKey"]) };
  expect((await callProcedure(caller, "engines.provision", { userId })).status).toBe(200);
  return caller;
}

/** The database is behind a link that the test cuts. */
export const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
  ORCH_STOP_GRACE_S: "1",
});
