import { randomBytes, randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { createClient } from "../../client/index.ts";
import { buildReferenceImage } from "../../server/runtime/docker/reference-image.ts";
import { generateMasterKeys } from "../../server/keys/keyring.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { takePortRange } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { removeEverything } from "./remove-everything.ts";
import { ADMIN_KEY, callProcedure, registerProduct, startService } from "./spawn-service.ts";

const DOCKER_HOST = process.env["DOCKER_HOST"];
const quiet = { info: () => {}, warn: () => {} };

test.skipIf(!isDockerAvailable())(
  "a turn of a stopped process goes on at the next one, and the stopped one changes nothing when it wakes up",
  { timeout: 600_000 },
  async () => {
    await using firstHome = await openTempDir();
    await using secondHome = await openTempDir();
    await using database = await openTestDatabase();
    const ports = takePortRange(2);
    const environment = {
      ORCH_DATABASE_URL: database.url,
      ORCH_ADMIN_KEY: ADMIN_KEY,
      ORCH_MASTER_KEYS: generateMasterKeys(),
      ORCH_ENGINE_BACKEND: "docker",
      ORCH_ENGINE_IMAGE: await buildReferenceImage({ dockerHost: DOCKER_HOST, log: quiet }),
      ORCH_ENGINE_NETWORK: `eh-test-${randomBytes(4).toString("hex")}`,
      ORCH_PORT_MIN: `${ports.min}`,
      ORCH_PORT_MAX: `${ports.max}`,
      ORCH_HEARTBEAT_S: "1",
      ORCH_LEASE_S: "5",
      ...(DOCKER_HOST === undefined ? {} : { DOCKER_HOST }),
    };
    const first = await startService({ ...environment, ORCH_DATA_DIR: firstHome.path });
    let last = first;
    try {
      const key = await registerProduct(first.url);
      await callProcedure({ url: first.url, key }, "engines.provision", { userId: "ada" });
      const turnId = randomUUID();
      const taskId = randomUUID();
      const request = { message: "hello", taskId, reference: { words: 1_500, delayMs: 20 } };
      await callProcedure({ url: first.url, key }, "turns.start", { turnId, userId: "ada", request });
      const seqOn = async (url: string) =>
        Number((await callProcedure({ url, key }, "turns.get", { turnId })).data["lastSeq"]);
      await expect.poll(async () => seqOn(first.url)).toBeGreaterThan(50);
      process.kill(first.pid, "SIGSTOP");

      const second = await startService({ ...environment, ORCH_DATA_DIR: secondHome.path });
      last = second;
      const client = createClient({ url: second.url, key });
      const turn = client.execute({ turnId, userId: "ada", request });
      const seqs: number[] = [];
      let text = "";
      for await (const event of turn) {
        // The next owner has read on. Now the stopped one reads what its connection has for it.
        if (seqs.length === 400) process.kill(first.pid, "SIGCONT");
        seqs.push(event.seq);
        if (event.type === "text_delta") text += event.data.text;
      }
      expect(await turn.end).toMatchObject({ status: "completed", lastSeq: seqs.length + 1 });
      expect(seqs).toEqual(Array.from(seqs, (_, index) => index + 1));
      // It was declared dead.
      expect(await first.exited).not.toBe(0);

      const params = { task_id: taskId };
      const thread = await callProcedure({ url: second.url, key }, "rpc.call", {
        userId: "ada",
        method: "memory.get_thread",
        params,
      });
      const { messages } = (thread.data as { result: { messages: { text: string }[] } }).result;
      expect(messages.map((message) => message.text)).toEqual(["hello", text]);
      client.close();
      await callProcedure({ url: second.url, key }, "engines.destroy", { userId: "ada" });
    } finally {
      await first.signal("SIGKILL");
      await removeEverything(last);
    }
  },
);
