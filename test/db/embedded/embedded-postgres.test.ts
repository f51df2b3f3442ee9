import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import postgres from "postgres";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openEmbeddedPostgres, type EmbeddedPostgres } from "../../../db/embedded/embedded-postgres.ts";
import { findProcess } from "../../../db/process-identity.ts";
import { openTempDir, type TempDir } from "../../support/temp-dir.ts";
import { startOpener } from "./opener.ts";

async function query(url: string, text: string): Promise<unknown[]> {
  const sql = postgres(url, { max: 1, onnotice: () => {} });
  try {
    return (await sql.unsafe(text)).map((row: Record<string, unknown>) => Object.values(row)[0]);
  } finally {
    await sql.end();
  }
}

const openFast = (dataDir: string) => openEmbeddedPostgres({ dataDir, durable: false });

test("after kill -9 of its opener, the next open adopts the server with its rows, and its close stops it", async () => {
  await using dir = await openTempDir();
  const first = await startOpener(dir.path);
  const { url, pid } = JSON.parse(first.output.replace("serving ", ""));
  await query(url, "create table kept as select 42 as answer");
  await first.kill();

  const second = await openFast(dir.path);
  expect(second).toMatchObject({ adopted: true, pid, url });
  expect(await query(second.url, "select answer from kept")).toEqual([42]);
  await second.close();
  expect(await findProcess(pid)).toBeUndefined();

  await using third = await openFast(dir.path);
  expect(third.adopted).toBe(false);
  expect(await query(third.url, "select answer from kept")).toEqual([42]);
});

test("of two starts at once on one data directory, one serves and the other fails with its pid", async () => {
  await using dir = await openTempDir();
  const openers = await Promise.all([startOpener(dir.path), startOpener(dir.path)]);
  const serving = openers.filter(({ output }) => output.startsWith("serving"));
  const refused = openers.filter(({ output }) => output.startsWith("refused"));
  await Promise.all(openers.map(async (opener) => opener.close()));
  expect(serving).toHaveLength(1);
  expect(refused.map(({ output }) => output)).toEqual([
    expect.stringContaining(`process ${serving[0]?.pid} already serves the data directory ${dir.path}`),
  ]);
});

test("two opens at once without a lock share one server", async () => {
  await using dir = await openTempDir();
  const openers = await Promise.all([
    startOpener(dir.path, "without-lock"),
    startOpener(dir.path, "without-lock"),
  ]);
  const opened = openers.map(({ output }) => JSON.parse(output.replace("serving ", "")));
  await Promise.all(openers.map(async (opener) => opener.close()));
  expect(new Set(opened.map(({ pid }) => pid)).size).toBe(1);
  expect(opened.filter(({ adopted }) => adopted)).toHaveLength(1);
});

test("after kill -9 of the server, the next open has all commits", async () => {
  await using dir = await openTempDir();
  const first = await openEmbeddedPostgres({ dataDir: dir.path });
  await query(first.url, "create table kept as select 42 as answer");
  process.kill(first.pid, "SIGKILL");
  await expect.poll(() => findProcess(first.pid)).toBeUndefined();

  await using second = await openFast(dir.path);
  expect(second.adopted).toBe(false);
  expect(await query(second.url, "select answer from kept")).toEqual([42]);
});

test("a pid file whose pid now belongs to another program does not stop a start, or that program", async () => {
  await using dir = await openTempDir();
  const first = await openFast(dir.path);
  const pidFile = join(dir.path, "postgres", "pgdata", "postmaster.pid");
  const [, ...rest] = (await readFile(pidFile, "utf8")).split("\n");
  await first.close();
  const other = spawn("sleep", ["600"]);
  try {
    await writeFile(pidFile, [`${other.pid}`, ...rest].join("\n"), { mode: 0o600 });
    const second = await openFast(dir.path);
    expect(second.adopted).toBe(false);
    await second.close();
    expect(other.exitCode).toBeNull();
  } finally {
    other.kill();
    await once(other, "exit");
  }
});

describe("a running server", () => {
  let dir: TempDir;
  let opened: EmbeddedPostgres;

  beforeAll(async () => {
    dir = await openTempDir();
    opened = await openFast(dir.path);
  });

  afterAll(async () => {
    await opened.close();
    await dir.close();
  });

  test("is not adopted with `adopt: false`, and keeps running", async () => {
    const opening = openEmbeddedPostgres({ dataDir: dir.path, adopt: false });
    await expect(opening).rejects.toThrow(`(process ${opened.pid}): stop it`);
    expect(await query(opened.url, "select 1")).toEqual([1]);
  });

  test("listens only on loopback, keeps its files private and requires its password", async () => {
    expect(await query(opened.url, "show listen_addresses")).toEqual(["127.0.0.1"]);
    expect(await query(opened.url, "show unix_socket_directories")).toEqual([""]);
    for (const [name, mode] of Object.entries({ "": 0o700, password: 0o600, "postgres.log": 0o600 })) {
      expect((await stat(join(dir.path, "postgres", name))).mode & 0o777).toBe(mode);
    }
    const wrong = new URL(opened.url);
    wrong.password = "guessed";
    await expect(query(wrong.href, "select 1")).rejects.toThrow("password authentication failed");
  });

  test("has a session of its own, so that Ctrl-C in a terminal does not reach it", async () => {
    const fields = (await readFile(`/proc/${opened.pid}/stat`, "utf8")).replace(/^.*\) /s, "").split(" ");
    const [, , processGroup, session] = fields;
    expect([processGroup, session]).toEqual([`${opened.pid}`, `${opened.pid}`]);
  });
});

/** Kills a start during initdb. False: the start was faster than the kill. */
async function killDuringInitdb(dataDir: string): Promise<boolean> {
  const opening = startOpener(dataDir);
  let names: string[] = [];
  const list = async () => (names = await readdir(dataDir));
  await expect.poll(list).toContainEqual(expect.stringMatching(/^postgres(\.new-|$)/));
  const draft = names.find((name) => name.startsWith("postgres.new-"));
  if (draft !== undefined) process.kill(Number(draft.split("-")[1]), "SIGKILL");
  const opener = await opening;
  await opener.kill();
  return !(await list()).includes("postgres");
}

/** A data directory whose first start was killed during initdb. */
async function makeAbandonedDraft(parent: string): Promise<string> {
  const maxTries = 5;
  for (let tries = 1; tries <= maxTries; tries += 1) {
    const dataDir = join(parent, `${tries}`);
    await mkdir(dataDir);
    if (await killDuringInitdb(dataDir)) return dataDir;
    const served = await openFast(dataDir);
    await served.close();
  }
  throw new Error(`${maxTries} starts were all faster than the kill during initdb`);
}

test("the next start removes everything that a start left when it was killed during initdb", async () => {
  await using parent = await openTempDir();
  const dataDir = await makeAbandonedDraft(parent.path);
  await using opened = await openFast(dataDir);
  expect(opened.adopted).toBe(false);
  expect((await readdir(dataDir)).filter((name) => name.startsWith("postgres."))).toEqual([]);
});
