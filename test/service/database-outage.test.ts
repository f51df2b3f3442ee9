import { expect, test } from "vitest";
import { openFlakyLink } from "../support/flaky-link.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, callProcedure, startService, type Service } from "./spawn-service.ts";

interface Place {
  url: string;
  key: string;
}

async function openPlace(url: string, userId: string): Promise<Place> {
  const registered = await callProcedure({ url, key: ADMIN_KEY }, "products.register", {
    slug: "acme",
    name: "Acme",
  });
  const place = { url, key: String(registered.data["apiKey"]) };
  expect((await callProcedure(place, "engines.provision", { userId })).status).toBe(200);
  return place;
}

/** The same with a key that the service knows as of now, which it does for half a second. */
async function withFreshKey({ url }: Place): Promise<Place> {
  const operator = { url, key: ADMIN_KEY };
  const { data } = await callProcedure(operator, "products.list", {});
  const [product] = data["items"] as { productId: string }[];
  const issuing = { productId: product?.productId, name: "fresh" };
  const issued = await callProcedure(operator, "platformKeys.issue", issuing);
  const place = { url, key: String(issued.data["apiKey"]) };
  expect((await callProcedure(place, "engines.list", {})).status).toBe(200);
  return place;
}

const toEnvironment = (dataDir: string, databaseUrl: string) => ({
  ORCH_DATA_DIR: dataDir,
  ORCH_DATABASE_URL: databaseUrl,
  ORCH_ADMIN_KEY: ADMIN_KEY,
  ORCH_STOP_GRACE_S: "1",
});
/** Short, and longer than a loaded machine may keep a process from its turn. */
const SHORT_LEASE = { ORCH_HEARTBEAT_S: "0.5", ORCH_LEASE_S: "3" };

/** All that a subscription says until it ends. */
async function readStream(place: Place, procedure: string, input: object): Promise<string> {
  const response = await fetch(`${place.url}/trpc/${procedure}`, {
    method: "POST",
    headers: { authorization: `Bearer ${place.key}`, "content-type": "application/json" },
    body: JSON.stringify(input),
  });
  return response.text();
}

async function readiness(service: Service): Promise<number> {
  const response = await fetch(`${service.url}/readyz`);
  await response.arrayBuffer();
  return response.status;
}

test("with the database away every call says so, a turn that streams goes on, and all of it is there afterwards", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using link = await openFlakyLink(database.url);
  await using service = await startService(toEnvironment(home.path, link.url));
  const place = await openPlace(service.url, "ada");
  const turnId = crypto.randomUUID();
  const request = { message: "hello", taskId: "t", reference: { words: 150, delayMs: 20 } };
  await callProcedure(place, "turns.start", { turnId, userId: "ada", request });

  link.cut();
  for (const procedure of ["engines.get", "engines.provision", "engines.stop"]) {
    const answer = await callProcedure(place, procedure, { userId: "ada" });
    expect(answer).toMatchObject({ status: 503, reason: "DATABASE_UNAVAILABLE" });
  }
  await expect.poll(() => readiness(service)).toBe(503);
  link.restore();

  // A connection that broke while it was made is given up after ten seconds, and made again.
  await expect.poll(() => readiness(service), { timeout: 90_000 }).toBe(200);
  await expect
    .poll(async () => (await callProcedure(place, "turns.get", { turnId })).data["status"])
    .toBe("completed");
  const response = await fetch(
    `${service.url}/trpc/turns.events?input=${encodeURIComponent(JSON.stringify({ turnId }))}`,
    { headers: { authorization: `Bearer ${place.key}` } },
  );
  const seqs = [...(await response.text()).matchAll(/"seq":(\d+)/g)].map((match) => Number(match[1]));
  expect(seqs.length).toBeGreaterThan(150);
  expect(seqs).toEqual(seqs.map((_seq, index) => index + 1));
  const destroyed = await callProcedure(place, "engines.destroy", { userId: "ada" });
  expect(destroyed.data).toMatchObject({ destroyed: true });
});

test("a database that hangs answers nobody, so the lease does, and calls work again once it is back", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  await using link = await openFlakyLink(database.url);
  await using service = await startService({ ...toEnvironment(home.path, link.url), ...SHORT_LEASE });
  const place = await openPlace(service.url, "ada");
  const turnId = crypto.randomUUID();
  const start = { userId: "ada", request: { message: "hello", taskId: "t" } };
  await readStream(place, "turns.execute", { ...start, turnId });

  const fresh = await withFreshKey(place);
  const openStreams = () => [
    readStream(fresh, "turns.events", { turnId }),
    readStream(fresh, "turns.execute", { ...start, turnId: crypto.randomUUID() }),
  ];
  link.hang();
  // At first the key is known still, and it is the log that is waited for; then the key is.
  const streams = openStreams();
  await new Promise((resolve) => setTimeout(resolve, 600));
  streams.push(...openStreams());
  const answers = await Promise.all(
    ["engines.get", "engines.stop", "products.list"].map((procedure) =>
      callProcedure(
        procedure === "products.list" ? { url: service.url, key: ADMIN_KEY } : place,
        procedure,
        procedure === "products.list" ? {} : { userId: "ada" },
      ),
    ),
  );
  for (const answer of answers) expect(answer).toMatchObject({ status: 503, reason: "DATABASE_UNAVAILABLE" });
  // Refused, and not kept with pings until somebody has mended the database.
  for (const text of await Promise.all(streams)) {
    expect(text).toMatch(/event: serialized-error\ndata: .*"reason":"DATABASE_UNAVAILABLE"/);
  }
  link.restore();

  // Here, too, a connection may have broken while it was made.
  await expect
    .poll(async () => (await callProcedure(place, "engines.get", { userId: "ada" })).status, {
      timeout: 90_000,
    })
    .toBe(200);
  const destroyed = await callProcedure(place, "engines.destroy", { userId: "ada" });
  expect(destroyed.data).toMatchObject({ destroyed: true });
});

test("a close that the database keeps waiting is ended by a third signal", async () => {
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
