import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import postgres from "postgres";
import { expect, test } from "vitest";
import { openTempDir } from "../support/temp-dir.ts";
import { openTestDatabase } from "../support/test-database.ts";
import { ADMIN_KEY, spawnService } from "./spawn-service.ts";

/** A Docker daemon that answers the requests of a start, but never a request about images. */
async function openSlowDaemon(socketPath: string) {
  const imageRequested = Promise.withResolvers<void>();
  let volume = "";
  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const path = request.url ?? "";
    if (path.includes("/images/") || path.includes("/build")) imageRequested.resolve();
    else if (path.endsWith("/_ping")) response.end("OK");
    else if (path.endsWith("/info")) response.end('{"ID":"slow"}');
    else {
      if (request.method === "POST") volume = await text(request);
      response.end(volume);
    }
  };
  const server = createServer((request, response) => void answer(request, response)).listen(socketPath);
  await once(server, "listening");
  return {
    imageRequested: imageRequested.promise,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

test("a start that takes longer than a lease sends heartbeats, and exits once it is declared dead", async () => {
  await using home = await openTempDir();
  await using database = await openTestDatabase();
  const socketPath = join(home.path, "docker.sock");
  await using daemon = await openSlowDaemon(socketPath);
  const sql = postgres(database.url, { max: 1 });
  await using service = spawnService({
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_DATA_DIR: home.path,
    ORCH_DATABASE_URL: database.url,
    ORCH_ENGINE_BACKEND: "docker",
    DOCKER_HOST: `unix://${socketPath}`,
    ORCH_HEARTBEAT_S: "1",
    ORCH_LEASE_S: "3",
  });
  try {
    await daemon.imageRequested;
    const findHeartbeat = async () =>
      (await sql`select heartbeat_at::text as at from replicas`)[0]?.["at"] as unknown;
    const first = await findHeartbeat();
    expect(first).toBeTypeOf("string");
    await expect.poll(findHeartbeat).not.toBe(first);
    // Another replica declares this one dead by deleting its row.
    await sql`delete from replicas`;
    await expect.poll(() => service.output()).toContain("declared dead by another replica");
    expect(await service.exited).toBe(1);
    expect(service.output()).not.toContain('"msg":"listening"');
  } finally {
    await sql.end();
  }
});
