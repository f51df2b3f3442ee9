import { expect, test } from "vitest";
import { openFlakyLink } from "../support/flaky-link.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, callProcedure, startService, type Service } from "./spawn-service.ts";

interface Caller {
  url: string;
  key: string;
}

async function openProduct(url: string, userId: string): Promise<Caller> {
  const registered = await callProcedure({ url, key: ADMIN_KEY }, "products.register", {
    slug: "acme",
    name: "Acme",
  });
  const caller = { url, key: String(registered.data["apiKey"]) };
  expect((await callProcedure(caller, "engines.provision", { userId })).status).toBe(200);
  return caller;
}

/** Issues a new key and uses it once, so that the service caches it for the next half second. */
async function withFreshKey({ url }: Caller): Promise<Caller> {
  const operator = { url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.list", {});
  const [product] = data["items"] as { productId: string }[];
  const issuing = { productId: product?.productId, name: "fresh" };
  const issued = await callProcedure(operator, "platformKeys.issue", issuing);
  const caller = { url, key: String(issued.data["apiKey"]) };
  expect((await callProcedure(caller, "engines.list", {})).status).toBe(200);
  return caller;
}

const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
  ORCH_STOP_GRACE_S: "1",
});
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

async function readiness(service: Service): Promise<number> {
  const response = await fetch(`${service.url}/readyz`);
  await response.arrayBuffer();
  return response.status;
}

test("during a database outage calls fail with DATABASE_UNAVAILABLE, and a streaming turn keeps all its events", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using link = await openFlakyLink(database.url);
  await using service = await startService(toEnvironment(home.path, link.url));
  const caller = await openProduct(service.url, "ada");
  const turnId = crypto.randomUUID();
  const request = { message: "hello", taskId: "t", reference: { words: 150, delayMs: 20 } };
  await callProcedure(caller, "turns.start", { turnId, userId: "ada", request });

  link.cut();
  for (const procedure of ["engines.get", "engines.provision", "engines.stop"]) {
    const answer = await callProcedure(caller, procedure, { userId: "ada" });
    expect(answer).toMatchObject({ status: 503, reason: "DATABASE_UNAVAILABLE" });
  }
  await expect.poll(() => readiness(service)).toBe(503);
  link.restore();

  // postgres.js gives a half-open connection up after ten seconds, and then connects again.
  await expect.poll(() => readiness(service), { timeout: 90_000 }).toBe(200);
  await expect
    .poll(async () => (await callProcedure(caller, "turns.get", { turnId })).data["status"])
    .toBe("completed");
  const response = await fetch(
    `${service.url}/trpc/turns.events?input=${encodeURIComponent(JSON.stringify({ turnId }))}`,
    { headers: { authorization: `Bearer ${caller.key}` } },
  );
  const seqs = [...(await response.text()).matchAll(/"seq":(\d+)/g)].map((match) => Number(match[1]));
  expect(seqs.length).toBeGreaterThan(150);
  expect(seqs).toEqual(seqs.map((_seq, index) => index + 1));
  const destroyed = await callProcedure(caller, "engines.destroy", { userId: "ada" });
  expect(destroyed.data).toMatchObject({ destroyed: true });
});

test("while the database hangs, the end of the lease ends all calls, and they work again afterwards", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using link = await openFlakyLink(database.url);
  await using service = await startService({ ...toEnvironment(home.path, link.url), ...SHORT_LEASE });
  const caller = await openProduct(service.url, "ada");
  const turnId = crypto.randomUUID();
  const start = { userId: "ada", request: { message: "hello", taskId: "t" } };
  await readStream(caller, "turns.execute", { ...start, turnId });

  const fresh = await withFreshKey(caller);
  const openStreams = () => [
    readStream(fresh, "turns.events", { turnId }),
    readStream(fresh, "turns.execute", { ...start, turnId: crypto.randomUUID() }),
  ];
  link.hang();
  // The first streams have a cached key and wait for the turn log. The later ones wait for the key.
  const streams = openStreams();
  await new Promise((resolve) => setTimeout(resolve, 600));
  streams.push(...openStreams());
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
