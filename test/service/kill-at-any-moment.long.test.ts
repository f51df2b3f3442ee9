import { expect, test } from "vitest";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openIdempotencyWatch } from "./idempotency-watch.ts";
import { ADMIN_KEY, callProcedure, registerProduct, startService } from "./spawn-service.ts";

test("a retry succeeds after the service was killed at any moment of a provision or a rotation", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const environment = {
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_STOP_GRACE_S: "1",
  };
  await using reservations = openIdempotencyWatch(database.url);
  let service = await startService(environment);
  const key = await registerProduct(service.url);
  const delaysMs = [5, 30, 90, 180, 300, 450];
  for (const [index, delayMs] of delaysMs.entries()) {
    const userId = `user-${index >> 1}`;
    const isRotation = index % 2 === 1;
    const procedure = isRotation ? "engineKeys.rotate" : "engines.provision";
    const input = { userId, idempotencyKey: `key-${index}`, ...(isRotation ? { when: "now" } : {}) };
    const cut = callProcedure({ url: service.url, key }, procedure, input).catch(() => undefined);
    // The first call may be cut before the service has reserved the key.
    if (index > 0) await reservations.untilReserved(input.idempotencyKey);
    await new Promise((resolve) => setTimeout(resolve, delayMs));
    await service.signal("SIGKILL");
    await cut;
    service = await startService(environment);
    const retried = await callProcedure({ url: service.url, key }, procedure, input);
    expect(retried.status, JSON.stringify(retried)).toBe(200);
    const apiKey = String(retried.data["apiKey"]);
    const { data } = await callProcedure({ url: service.url, key }, "engines.get", { userId });
    expect(data).toMatchObject({ status: "running" });
    const direct = await fetch(`${String(data["url"])}/rpc`, {
      method: "POST",
      headers: { "x-engine-key": apiKey, "content-type": "application/json" },
      body: JSON.stringify({ method: "get_config", params: {} }),
    });
    expect(direct.status).toBe(200);
  }
  for (const user of [0, 1, 2]) {
    const gone = await callProcedure({ url: service.url, key }, "engines.destroy", {
      userId: `user-${user}`,
    });
    expect(gone.status).toBe(200);
  }
  expect((await callProcedure({ url: service.url, key }, "audit.verify", {})).data).toMatchObject({
    ok: true,
  });
  expect(await service.signal("SIGTERM")).toBe(0);
}, 600_000);
