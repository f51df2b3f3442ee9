import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { expect, test } from "vitest";
import type { Config } from "../../server/config/config.ts";
import { withDefaultImage } from "../../server/boot/default-image.ts";
import { testConfig } from "../engines/test-config.ts";
import { openTempDir } from "../support/temp-dir.ts";

/** A daemon that answers its ping or nothing, and fails every other call. */
async function openBrokenDaemon({ answersPing }: { answersPing: boolean }) {
  const home = await openTempDir();
  const socketPath = join(home.path, "docker.sock");
  const paths: string[] = [];
  const server = createServer((request, response) => {
    const { url: path = "" } = request;
    paths.push(path);
    if (!path.endsWith("/_ping")) response.writeHead(500).end();
    else if (answersPing) response.end("OK");
  }).listen(socketPath);
  await once(server, "listening");
  return {
    dockerHost: `unix://${socketPath}`,
    paths,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
      await home.close();
    },
  };
}

const { signal } = new AbortController();

async function ask(config: Config, kind: "docker" | "process" = "docker") {
  const warnings: string[] = [];
  const log = { debug: () => {}, info: () => {}, error: () => {}, child: () => log, warn };
  function warn(_fields: object, message: string) {
    warnings.push(message);
  }
  return { given: await withDefaultImage(config, { runtime: { kind }, log, signal }), warnings };
}

test("no image is built if an image is configured, in production, or for the process runtime", async () => {
  await using daemon = await openBrokenDaemon({ answersPing: true });
  const config = testConfig({ dockerHost: daemon.dockerHost, engineImage: undefined, production: false });
  for (const [other, kind] of [
    [{ ...config, engineImage: "acme/engine:1" }, "docker"],
    [{ ...config, production: true }, "docker"],
    [config, "process"],
  ] as const) {
    expect(await ask(other, kind)).toEqual({ given: other, warnings: [] });
  }
  expect(daemon.paths).toEqual([]);
});

test("a daemon that hangs gets no build request, and the start continues", async () => {
  await using daemon = await openBrokenDaemon({ answersPing: false });
  const config = testConfig({ dockerHost: daemon.dockerHost, engineImage: undefined, production: false });
  const warnings = [expect.stringMatching(/set ORCH_ENGINE_IMAGE, or start again/)];
  expect(await ask(config)).toEqual({ given: config, warnings });
  expect(daemon.paths.filter((path) => !path.endsWith("/_ping"))).toEqual([]);
});

test("a failed build is logged, and the start continues", async () => {
  await using daemon = await openBrokenDaemon({ answersPing: true });
  const config = testConfig({ dockerHost: daemon.dockerHost, engineImage: undefined, production: false });
  const warnings = [expect.stringMatching(/set ORCH_ENGINE_IMAGE to provision/)];
  // On a loaded machine, the first answer may come after the deadline.
  await expect.poll(() => ask(config)).toEqual({ given: config, warnings });
  expect(daemon.paths.filter((path) => !path.endsWith("/_ping"))).not.toEqual([]);
});
