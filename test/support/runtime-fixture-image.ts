import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type Docker from "dockerode";
import { openDockerClient } from "../../server/runtime/docker/client.ts";
import type { DockerClient } from "../../server/runtime/docker/client.ts";
import { buildNodeImage } from "../../server/runtime/docker/node-image.ts";

export interface FixtureImage extends AsyncDisposable {
  readonly tag: string;
  /** For a look at what the runtime made, past the runtime. */
  readonly docker: Docker;
  readonly client: DockerClient;
}

/** The fixture engine as an image of this test file's own, gone when disposed. */
export async function buildFixtureImage(): Promise<FixtureImage> {
  const client = await openDockerClient({ dockerHost: process.env["DOCKER_HOST"], callTimeoutMs: 60_000 });
  const source = await readFile(join(import.meta.dirname, "runtime-fixture-engine.ts"));
  // Equal content is built once by the daemon: whoever removes his image takes the other's away while it is built.
  const description = { name: `fixture-${randomUUID()}`, type: "module" };
  const files = new Map([
    ["/engine/main.ts", source],
    ["/engine/package.json", Buffer.from(JSON.stringify(description))],
  ]);
  const name = `enginehouse-fixture-${process.pid}`;
  const tag = await buildNodeImage(client, { name, files, entry: "/engine/main.ts" });
  return {
    tag,
    docker: client.docker,
    client,
    [Symbol.asyncDispose]: async () => {
      await client.docker.getImage(tag).remove({ force: true });
      client[Symbol.dispose]();
    },
  };
}
