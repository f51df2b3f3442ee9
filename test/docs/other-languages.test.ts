import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, request as sendRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openServiceProcess, type ServiceProcess } from "../client/service-process.ts";
import { openShortWire } from "../client/short-wire.ts";
import { findProgram } from "../support/find-program.ts";
import { openTempDir } from "../support/temp-dir.ts";

const PAGE = new URL("../../docs/other-languages.md", import.meta.url);
const run = promisify(execFile);
const curl = findProgram("curl");
const python = findProgram("python3");

let service: ServiceProcess;
let key: string;
let listTurns: () => Promise<{ turnId: string }[]>;
beforeAll(async () => {
  service = await openServiceProcess();
  await service.start();
  const { client, apiKey } = await service.openProduct("acme");
  await client.api.engines.provision.mutate({ userId: "ada" });
  key = apiKey;
  listTurns = async () => (await client.api.turns.list.query({ userId: "ada" })).items;
});
afterAll(async () => service[Symbol.asyncDispose]());

/** The code block of the page in this language. */
async function readProgram(language: string): Promise<string> {
  const blocks = (await readFile(PAGE, "utf8")).matchAll(/^```(\w+)\n([^]*?)^```$/gm);
  const found = Array.from(blocks).filter(([, name]) => name === language);
  const [[, , program] = []] = found;
  if (found.length !== 1 || program === undefined)
    throw new Error(`the page has ${found.length} programs in ${language}`);
  return program;
}

interface Printed {
  stdout: string;
  stderr: string;
}

/** Runs a program of the page as a reader of the page does, in an empty folder. */
async function runProgram(command: string, args: string[], url = service.url): Promise<Printed> {
  await using folder = await openTempDir();
  const env = { ...process.env, ENGINEHOUSE_URL: url, PLATFORM_KEY: key, PYTHONUNBUFFERED: "1" };
  return await run(command, args, { cwd: folder.path, env, timeout: 120_000 });
}

/** The text of the last turn but one, as the service has it. */
async function readText(): Promise<string> {
  const [, turn] = await listTurns();
  const headers = { authorization: `Bearer ${key}` };
  const response = await fetch(`${service.url}/v1/turns/${turn?.turnId}/events`, { headers });
  const deltas = (await response.text()).matchAll(/^event: text_delta\ndata: (.*)$/gm);
  const text = Array.from(deltas, ([, data = ""]) => (JSON.parse(data) as { text: string }).text).join("");
  expect(text.length).toBeGreaterThan(10);
  return text;
}

const idsIn = (text: string) => Array.from(text.matchAll(/^id: (\d+)$/gm), ([, id]) => Number(id));

test.skipIf(curl === undefined)("the curl program starts, resumes, answers and cancels turns", async () => {
  const { stdout } = await runProgram("bash", ["-euc", await readProgram("sh")]);
  const [whole = "", rest = ""] = stdout.split(/^204$/m);
  const ids = idsIn(whole);
  expect(ids.length).toBeGreaterThan(4);
  expect(ids).toEqual(ids.map((_id, index) => index + 1));
  expect(whole).toMatch(/event: enginehouse\.end\ndata: \{"status":"completed"[^\n]*\n\n$/);
  expect(rest).toMatch(
    /\{"status":"resolved"\}[^]*event: enginehouse\.end\ndata: \{"status":"completed"[^]*"status":"cancelled"/,
  );
  expect(rest).toMatch(
    /event: enginehouse\.end\ndata: \{"status":"cancelled","reason":"CANCELLED"[^\n]*\n\n$/,
  );
});

test.skipIf(python === undefined)("the Python program starts, reads and cancels turns", async () => {
  const { stdout, stderr } = await runProgram(python ?? "", ["-c", await readProgram("python")]);
  expect(stderr).toBe("");
  expect(stdout).toBe(`${await readText()}\ncompleted\ncancelled CANCELLED\n`);
});

/** Answers each request with `answer`, or passes it on to the service if that is undefined. */
async function openProxy(answer: (request: number) => { status: number; body: string } | undefined) {
  let requests = 0;
  const proxy = createServer((request, response) => {
    const own = answer((requests += 1));
    if (own !== undefined) return void response.writeHead(own.status).end(own.body);
    const { method, headers, url = "" } = request;
    const onward = sendRequest(`${service.url}${url}`, { method, headers }, (got) => {
      response.writeHead(got.statusCode ?? 500, got.headers);
      got.pipe(response);
    });
    request.pipe(onward);
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      proxy.closeAllConnections();
      proxy.close();
      await once(proxy, "close");
    },
  };
}

test.skipIf(python === undefined)("the Python program waits while a proxy answers 502 in HTML", async () => {
  await using proxy = await openProxy((request) =>
    request === 1 ? { status: 502, body: "<html>Bad Gateway</html>" } : undefined,
  );
  const { stdout } = await runProgram(python ?? "", ["-c", await readProgram("python")], proxy.url);
  expect(stdout).toBe(`${await readText()}\ncompleted\ncancelled CANCELLED\n`);
});

test.skipIf(python === undefined)(
  "the Python program gives up on a task that stays busy, and says why",
  async () => {
    const error = { reason: "TURN_IN_PROGRESS", message: "busy", requestId: "1", retryAfterMs: 100 };
    await using proxy = await openProxy(() => ({ status: 409, body: JSON.stringify({ error }) }));
    const program = (await readProgram("python")).replace("patience=120", "patience=0.5");
    const running = runProgram(python ?? "", ["-c", program], proxy.url);
    await expect(running).rejects.toThrow(/gave up after 0\.5 s: TURN_IN_PROGRESS: busy/);
  },
);

test.skipIf(python === undefined)(
  "the Python program prints every text once although each of its connections breaks, and starts each turn once",
  async () => {
    const before = (await listTurns()).length;
    await using wire = await openShortWire(service.url, 1_500);
    const { stdout } = await runProgram(python ?? "", ["-c", await readProgram("python")], wire.url);
    expect(wire.connections).toBeGreaterThan(4);
    expect((await listTurns()).length - before).toBe(2);
    expect(stdout).toBe(`${await readText()}\ncompleted\ncancelled CANCELLED\n`);
  },
);
