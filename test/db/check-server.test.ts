import { createServer } from "node:net";
import { once } from "node:events";
import { expect, test } from "vitest";
import { checkServer } from "../../db/check-server.ts";
import { openEmptyDatabase, runAsAdmin } from "../support/test-database.ts";
import { openTransactionPooler } from "../support/transaction-pooler.ts";

test("a database whose sessions keep their settings is accepted", async () => {
  await using database = await openEmptyDatabase();
  await checkServer(database.url);
});

test("a connection pooler in transaction mode is refused by name", async () => {
  await using database = await openEmptyDatabase();
  await using pooler = await openTransactionPooler(database.url);
  await expect(checkServer(pooler.url)).rejects.toThrow(
    "a connection pooler in transaction mode answers instead of Postgres: give the address of Postgres itself",
  );
});

test("a session setting that something overrides is refused by its name and value", async () => {
  await using database = await openEmptyDatabase();
  const url = `${database.url}?DateStyle=${encodeURIComponent("SQL, DMY")}`;
  await expect(checkServer(url)).rejects.toThrow('a session has DateStyle "SQL, DMY"');
});

test("a database whose triggers are switched off is refused", async () => {
  await using database = await openEmptyDatabase();
  const { pathname } = new URL(database.url);
  await runAsAdmin(
    database.url,
    `alter database ${pathname.slice(1)} set session_replication_role = replica`,
  );
  await expect(checkServer(database.url)).rejects.toThrow('a session has session_replication_role "replica"');
});

test("a read-only database is refused, with the way out", async () => {
  await using database = await openEmptyDatabase();
  const { pathname } = new URL(database.url);
  await runAsAdmin(
    database.url,
    `alter database ${pathname.slice(1)} set default_transaction_read_only = on`,
  );
  await expect(checkServer(database.url)).rejects.toThrow(
    "the database is read-only (default_transaction_read_only is on): point ORCH_DATABASE_URL at the primary",
  );
});

/** A server that refuses every connection with this error. */
async function openRefusingServer(code: string, message: string) {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.once("data", () => {
      const body = Buffer.from(`SFATAL\0VFATAL\0C${code}\0M${message}\0\0`);
      const head = Buffer.alloc(5);
      head.write("E");
      head.writeInt32BE(body.length + 4, 1);
      socket.end(Buffer.concat([head, body]));
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  return {
    url: `postgres://u:p@127.0.0.1:${port}/d`,
    [Symbol.asyncDispose]: async () => {
      server.close();
      await once(server, "close");
    },
  };
}

test.each([
  ["08P01", "unsupported startup parameter: search_path", "a connection pooler refused a connection"],
  [
    "42704",
    'unrecognized configuration parameter "idle_session_timeout"',
    "Postgres 14 or newer is required",
  ],
])("a server that refuses a setting (%s) is refused by name", async (code, message, expected) => {
  await using server = await openRefusingServer(code, message);
  await expect(checkServer(server.url)).rejects.toThrow(expected);
});
