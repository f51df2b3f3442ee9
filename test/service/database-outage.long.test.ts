import { expect, test } from "vitest";
import { openFlakyLink } from "../support/flaky-link.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openProduct, toEnvironment, type Caller } from "./outage.ts";
import { ADMIN_KEY, callProcedure, startService } from "./spawn-service.ts";

/** Issues a key. The service caches a key for half a second from its first use on. */
async function withNewKey({ url }: Caller, name: string): Promise<Caller> {
  const operator = { url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.list", {});
  const [product] = data["items"] as { productId: string }[];
  const issuing = { productId: product?.productId, name };
  const issued = await callProcedure(operator, "platformKeys.issue", issuing);
  return { url, key: String(issued.data["apiKey"]) };
}

/** Short, but longer than a loaded machine may suspend a process. */
const SHORT_LEASE = { ORCH_HEARTBEAT_S: "0.5", ORCH_LEASE_S: "3" };

/** The whole text of a subscription, until it ends. */
async function readStream(caller: Caller, procedure: string, input: object): Promise<string> {
  const response = await fetch(`${caller.url}/trpc/${procedure}`, {
    method: "POST",
    headers: { authorization: `Bearer ${caller.key}`, "content-type": "application/json" },
    body: JSON.stringify(input),
  });
  return response.text();
}

test("while the database hangs, the end of the lease ends all calls, and they work again afterwards", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using link = await openFlakyLink(database.url);
  await using service = await startService({ ...toEnvironment(home.path, link.url), ...SHORT_LEASE });
  const caller = await openProduct(service.url, "ada");
  const turnId = crypto.randomUUID();
  const start = { userId: "ada", request: { message: "hello", taskId: "t" } };
  await readStream(caller, "turns.execute", { ...start, turnId });

  const unused = await withNewKey(caller, "unused");
  const cached = await withNewKey(caller, "cached");
  expect((await callProcedure(cached, "engines.list", {})).status).toBe(200);
  link.hang();
  // Streams with a cached key wait for the turn log. Streams with another key wait for the key.
  const streams = [cached, unused].flatMap((reader) => [
    readStream(reader, "turns.events", { turnId }),
    readStream(reader, "turns.execute", { ...start, turnId: crypto.randomUUID() }),
  ]);
  const answers = await Promise.all(
    ["engines.get", "engines.stop", "products.list"].map((procedure) =>
      callProcedure(
        procedure === "products.list" ? { url: service.url, key: ADMIN_KEY } : caller,
        procedure,
        procedure === "products.list" ? {} : { userId: "ada" },
      ),
    ),
  );
  for (const answer of answers) expect(answer).toMatchObject({ status: 503, reason: "DATABASE_UNAVAILABLE" });
  // The streams are refused, not kept open with pings until the database works again.
  for (const text of await Promise.all(streams)) {
    expect(text).toMatch(/event: serialized-error\ndata: .*"reason":"DATABASE_UNAVAILABLE"/);
  }
  link.restore();

  // Here too, postgres.js may have a half-open connection.
  await expect
    .poll(async () => (await callProcedure(caller, "engines.get", { userId: "ada" })).status, {
      timeout: 90_000,
    })
    .toBe(200);
  const destroyed = await callProcedure(caller, "engines.destroy", { userId: "ada" });
  expect(destroyed.data).toMatchObject({ destroyed: true });
});

test("a third signal ends a close that waits for the database", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using link = await openFlakyLink(database.url);
  await using service = await startService(toEnvironment(home.path, link.url));
  link.hang();
  const output = () => service.output();
  void service.signal("SIGTERM");
  await expect.poll(output).toContain("draining");
  const hurry = setInterval(() => void service.signal("SIGTERM"), 100);
  try {
    expect(await service.exited).toBe(1);
  } finally {
    clearInterval(hurry);
  }
  expect(output()).toMatch(/ending the drain.*exiting without closing/s);
});
