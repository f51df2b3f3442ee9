import { expect, test } from "vitest";
import { openFlakyLink } from "../support/flaky-link.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { openProduct, toEnvironment } from "./outage.ts";
import { callProcedure, startService, type Service } from "./spawn-service.ts";

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
