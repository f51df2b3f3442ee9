import { Agent, request as httpRequest } from "node:http";
import { readFileSync } from "node:fs";
import { json } from "node:stream/consumers";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { IncomingMessage } from "node:http";
import { expect, test } from "vitest";
import { ADMIN_KEY, callProcedure, startService } from "../service/spawn-service.ts";
import { takePortRange } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";

const TINY_ENGINE = fileURLToPath(new URL("../../engine/tiny-engine.pl", import.meta.url));
/** `npm run bench flood` measures a thousand engines, and how long another tenant's calls take during the flood. */
const FLOOD = 300;
const TIMEOUT_MS = 1_800_000;
/** The pause between two calls of the other tenant. */
const PACE_MS = 20;

interface Caller {
  url: string;
  key: string;
}

interface Answer {
  ok: boolean;
  reason: string;
}

/** One connection for each call, as hundreds of clients have. */
async function call(agent: Agent, { url, key }: Caller, procedure: string, input: object): Promise<Answer> {
  const headers = { authorization: `Bearer ${key}`, "content-type": "application/json" };
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const sent = httpRequest(`${url}/trpc/${procedure}`, { method: "POST", agent, headers });
    sent.once("response", resolve).once("error", reject).end(JSON.stringify(input));
  });
  const body = (await json(response)) as { error?: { message: string; data: { reason: string } } };
  const reason = body.error === undefined ? "" : `${body.error.data.reason}: ${body.error.message}`;
  return { ok: response.statusCode === 200, reason };
}

function countReasons(answers: readonly Answer[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { ok, reason } of answers) if (!ok) counts[reason] = (counts[reason] ?? 0) + 1;
  return counts;
}

async function registerProduct(url: string, slug: string): Promise<Caller> {
  const { data } = await callProcedure({ url, key: ADMIN_KEY }, "products.register", { slug, name: slug });
  return { url, key: String(data["apiKey"]) };
}

/** Seconds of CPU that the service itself has used. */
function readCpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

test(
  "a tenant that provisions and destroys many hundred engines at once fails none of the other tenant's calls",
  async (t) => {
    if (process.platform !== "linux") return t.skip("the test reads /proc");
    await using home = await openTempDir();
    await using database = await openTestDatabase();
    const { min, max } = takePortRange(FLOOD + 20);
    await using service = await startService({
      ORCH_DATA_DIR: home.path,
      ORCH_DATABASE_URL: database.url,
      ORCH_ADMIN_KEY: ADMIN_KEY,
      ORCH_ENGINE_BACKEND: "process",
      ORCH_ENGINE_COMMAND: `perl ${TINY_ENGINE}`,
      ORCH_PORT_MIN: String(min),
      ORCH_PORT_MAX: String(max),
      ORCH_STOP_GRACE_S: "5",
    });
    using agent = Object.assign(new Agent({ keepAlive: false, maxSockets: Infinity }), {
      [Symbol.dispose]: () => agent.destroy(),
    });
    const flooding = await registerProduct(service.url, "flooding");
    const quiet = await registerProduct(service.url, "quiet");
    expect(await call(agent, quiet, "engines.provision", { userId: "ada" })).toMatchObject({ ok: true });

    /** The other tenant's calls until the work has ended, one after the other. */
    const watch = async (hasEnded: () => boolean): Promise<Answer[]> => {
      const answers: Answer[] = [];
      while (!hasEnded()) {
        const rpc = { userId: "ada", method: "get_config", params: {} };
        answers.push(await call(agent, quiet, "rpc.call", rpc));
        await sleep(PACE_MS);
      }
      return answers;
    };
    const users = Array.from({ length: FLOOD }, (_, index) => `user-${index}`);
    const flood = async (procedure: string, count: number) => {
      const cpuBefore = readCpuSeconds(service.pid);
      const work = Promise.all(
        users.slice(0, count).map((userId) => call(agent, flooding, procedure, { userId })),
      );
      let hasEnded = false;
      const watching = watch(() => hasEnded);
      const answers = await work;
      hasEnded = true;
      const watched = await watching;
      const cpu = readCpuSeconds(service.pid) - cpuBefore;
      return { answers, watched, cpu };
    };

    const third = Math.floor(FLOOD / 3);
    const cpuOf: Record<string, number> = {};
    for (const [name, count] of [
      ["small", third],
      ["large", FLOOD],
    ] as const) {
      for (const procedure of ["engines.provision", "engines.destroy"]) {
        const { answers, watched, cpu } = await flood(procedure, count);
        cpuOf[`${procedure} ${name}`] = cpu / count;
        expect(countReasons(answers)).toEqual({});
        expect(countReasons(watched)).toEqual({});
      }
    }
    // The cost of one engine must not grow with the number of engines.
    for (const procedure of ["engines.provision", "engines.destroy"]) {
      expect(cpuOf[`${procedure} large`]).toBeLessThan(2 * (cpuOf[`${procedure} small`] ?? 0));
    }
    expect(await call(agent, flooding, "engines.provision", { userId: "last" })).toMatchObject({ ok: true });
    for (const [caller, userId] of [
      [flooding, "last"],
      [quiet, "ada"],
    ] as const) {
      expect(await call(agent, caller, "engines.destroy", { userId })).toMatchObject({ ok: true });
    }
  },
  TIMEOUT_MS,
);
