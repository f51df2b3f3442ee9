import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Database } from "../../db/client.ts";
import { removeOldStoredBytes } from "../../db/stored-bytes.ts";
import { DomainError } from "../../server/errors.ts";
import {
  REPLIES_MAX_BYTES_PER_HOUR,
  REPLY_MAX_LENGTH,
  runIdempotent,
  type IdempotentCall,
} from "../../server/idempotency/run-idempotent.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";
import { openIdempotency, type Idempotency, type IdempotencyContext } from "./open-idempotency.ts";

let site: Idempotency;
let database: Database;
beforeAll(async () => {
  site = await openIdempotency();
  ({ database } = site);
});
afterAll(async () => {
  await site?.[Symbol.asyncDispose]();
});

const openReplica = async () => site.openReplica();

const toCall = (scope: string, more: Partial<IdempotentCall> = {}): IdempotentCall => ({
  scope,
  key: randomUUID(),
  procedure: "rpc.call",
  input: {},
  onLost: "outcome_unknown",
  ...more,
});
const toReply = (length: number) => ({ result: "x".repeat(length) });
const repeated = async () => Promise.reject(new Error("the work ran twice"));

/** What a retry gets: the stored reply, or the reason of the stored error. */
async function retry(ctx: IdempotencyContext, call: IdempotentCall): Promise<unknown> {
  return runIdempotent(ctx, call, repeated).catch((error: unknown) => {
    if (error instanceof DomainError) return error.reason;
    throw error;
  });
}

const readStored = async (scope: string) => {
  const [row] = await database.raw<{ bytes: number }[]>`
    select coalesce(sum(octet_length(reply_sealed)), 0)::int as bytes from idempotency where scope = ${scope}`;
  return row?.bytes ?? 0;
};
const setUsed = async (scope: string, bytes: number) => database.raw`
  insert into stored_bytes (scope, kind, hour, bytes)
  values (${scope}, 'replies', date_trunc('hour', orch_now(), 'UTC'), ${bytes})`;

describe("the reply of a call into an engine", () => {
  test("is not kept if it is large: the caller gets it, and a retry gets OUTCOME_UNKNOWN with the reason", async () => {
    const ctx = await openReplica();
    const call = toCall(randomUUID());
    const reply = toReply(REPLY_MAX_LENGTH);
    expect(await runIdempotent(ctx, call, async () => reply)).toBe(reply);
    for (let again = 0; again < 2; again += 1) {
      await expect(runIdempotent(ctx, call, repeated)).rejects.toMatchObject({
        reason: "OUTCOME_UNKNOWN",
        message: expect.stringMatching(/succeeded.*too large to be kept.*read the engine's state/),
      });
    }
    expect(await readStored(call.scope)).toBeLessThan(2_000);
  });

  test.each([0, 100, 5_000, REPLY_MAX_LENGTH - 100])("of %i characters is kept", async (length) => {
    const ctx = await openReplica();
    const call = toCall(randomUUID());
    await runIdempotent(ctx, call, async () => toReply(length));
    expect(await retry(ctx, call)).toEqual(toReply(length));
  });

  test("that is an error of unknown outcome is bounded as well", async () => {
    const ctx = await openReplica();
    const call = toCall(randomUUID());
    const engineError = { status: 500, code: "E", message: "m", details: "d".repeat(REPLY_MAX_LENGTH) };
    const failing = async () => {
      throw new DomainError("OUTCOME_UNKNOWN", "it broke", { engineError });
    };
    await expect(runIdempotent(ctx, call, failing)).rejects.toThrow("it broke");
    await expect(runIdempotent(ctx, call, repeated)).rejects.toMatchObject({
      reason: "OUTCOME_UNKNOWN",
      message: expect.stringContaining("its error was too large to be kept"),
    });
    expect(await readStored(call.scope)).toBeLessThan(2_000);
  });

  test("is kept only while the scope has room in this hour, exactly so over all replicas", async () => {
    const replicas = await Promise.all([openReplica(), openReplica()]);
    const scope = randomUUID();
    const first = toCall(scope);
    await runIdempotent(replicas[0], first, async () => toReply(10_000));
    const each = await readStored(scope);
    await database.raw`
      update stored_bytes set bytes = ${REPLIES_MAX_BYTES_PER_HOUR - 3 * each} where scope = ${scope}`;
    const calls = Array.from({ length: 12 }, () => toCall(scope));
    const run = async (call: IdempotentCall, index: number) =>
      runIdempotent(replicas[index % 2] ?? replicas[0], call, async () => toReply(10_000));
    await Promise.all(calls.map(run));
    const retries = await Promise.all(calls.map(async (call) => retry(replicas[0], call)));
    expect(retries.filter((found) => found === "OUTCOME_UNKNOWN")).toHaveLength(9);
    expect(retries.filter((found) => typeof found === "object")).toHaveLength(3);
    // Another scope, a small reply, and the next hour have room.
    const [other, small, later] = [toCall(randomUUID()), toCall(scope), toCall(scope)];
    await run(other, 0);
    expect(await retry(replicas[0], other)).toEqual(toReply(10_000));
    await runIdempotent(replicas[0], small, async () => toReply(100));
    expect(await retry(replicas[0], small)).toEqual(toReply(100));
    await shiftDatabaseClock(site.url, "1 hour");
    await run(later, 0);
    await shiftDatabaseClock(site.url, "0");
    expect(await retry(replicas[0], later)).toEqual(toReply(10_000));
  });
});

test("a reply that may hold a secret is always kept, whatever its size and the room", async () => {
  const ctx = await openReplica();
  const scope = randomUUID();
  await setUsed(scope, REPLIES_MAX_BYTES_PER_HOUR);
  const call = toCall(scope, { procedure: "engines.provision", onLost: "resume" });
  const reply = { apiKey: "ehe_secret", ...toReply(2 * REPLY_MAX_LENGTH) };
  await runIdempotent(ctx, call, async () => reply);
  expect(await retry(ctx, call)).toEqual(reply);
});

test("counts of past hours are deleted, and those of this hour stay", async () => {
  const scope = randomUUID();
  await setUsed(scope, 1);
  await shiftDatabaseClock(site.url, "-3 hours");
  await setUsed(scope, 2);
  await shiftDatabaseClock(site.url, "0");
  await removeOldStoredBytes(database.db);
  const rows = await database.raw`select bytes::int from stored_bytes where scope = ${scope}`;
  expect([...rows]).toEqual([{ bytes: 1 }]);
});
