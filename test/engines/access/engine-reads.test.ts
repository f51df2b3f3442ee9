import { expect, test } from "vitest";
import type { EngineRow, EngineUser } from "../../../db/engines.ts";
import { EngineReads } from "../../../server/engines/access/engine-reads.ts";

/** Statements that stay under way until the test answers them. */
function openReads() {
  const statements: { users: string[]; answer: PromiseWithResolvers<void> }[] = [];
  const reads = new EngineReads(async (users) => {
    const answer = Promise.withResolvers<void>();
    statements.push({ users: users.map(({ userId }) => userId), answer });
    await answer.promise;
    return users.map(({ userId }) => (userId === "absent" ? undefined : ({ userId } as EngineRow)));
  });
  return { statements, find: async (userId: string) => reads.find(toUser(userId)) };
}

function toUser(userId: string): EngineUser {
  return { productId: "product", userId };
}

test("two reads have a statement each, and reads that arrive meanwhile share the next one", async () => {
  const { statements, find } = openReads();
  const found = Promise.all(["ada", "bob", "cleo", "absent", "cleo"].map(find));
  expect(statements.map(({ users }) => users)).toEqual([["ada"], ["bob"]]);
  statements[0]?.answer.resolve();
  await expect.poll(() => statements[2]?.users).toEqual(["cleo", "absent", "cleo"]);
  statements[1]?.answer.resolve();
  statements[2]?.answer.resolve();
  const users = (await found).map((row) => row?.userId);
  expect(users).toEqual(["ada", "bob", "cleo", undefined, "cleo"]);
});

test("statements that hang hold up no later read", async () => {
  const { statements, find } = openReads();
  const hanging = Promise.all([find("ada"), find("bob")]);
  const later = find("cleo");
  await expect.poll(() => statements[2]?.users).toEqual(["cleo"]);
  statements[2]?.answer.resolve();
  expect(await later).toMatchObject({ userId: "cleo" });
  for (const { answer } of statements) answer.resolve();
  expect(await hanging).toHaveLength(2);
});

test("an error reaches every read of its statement, and later reads go on", async () => {
  const { statements, find } = openReads();
  const first = [find("ada"), find("bob")];
  const together = Promise.allSettled([find("cleo"), find("dora")]);
  statements[0]?.answer.resolve();
  await expect.poll(() => statements.length).toBe(3);
  statements[2]?.answer.reject(new Error("the connection broke"));
  expect((await together).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  const later = find("emil");
  await expect.poll(() => statements.length).toBe(4);
  for (const { answer } of statements) answer.resolve();
  expect(await later).toMatchObject({ userId: "emil" });
  expect(await Promise.all(first)).toHaveLength(2);
});
