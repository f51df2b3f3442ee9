import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type Docker from "dockerode";
import { openDockerClient, type DockerClient } from "../../server/runtime/docker/client.ts";
import { buildNodeImage } from "../../server/runtime/docker/node-image.ts";

export interface FixtureImage extends AsyncDisposable {
  readonly tag: string;
  /** Inspects what the runtime created, without using the runtime. */
  readonly docker: Docker;
  readonly client: DockerClient;
}

/** Builds the fixture engine's image for one test file. Its disposal removes the image. */
export async function buildFixtureImage(): Promise<FixtureImage> {
  const client = await openDockerClient({ dockerHost: process.env["DOCKER_HOST"], callTimeoutMs: 60_000 });
  const source = await readFile(join(import.meta.dirname, "runtime-fixture-engine.ts"));
  // The daemon shares layers of equal content, so removing one image could break the build of another. The random name
  // makes the content unique.
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
