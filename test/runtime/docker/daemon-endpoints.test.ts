import { type ChildProcess, spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { join } from "node:path";
import { userInfo } from "node:os";
import { describe, expect, it } from "vitest";
import {
  DAEMON_ENDPOINTS,
  isDaemonEndpoint,
  toEndpointPattern,
} from "../../../server/runtime/docker/daemon-endpoints.ts";
import { openDockerRuntime } from "../../../server/runtime/docker/runtime.ts";
import { isDockerAvailable } from "../../support/docker-available.ts";
import { findProgram } from "../../support/find-program.ts";
import { openDockerSubject } from "../../support/runtime-docker-subject.ts";
import { boot, observeOne, quietLog, recordEvents } from "../../support/runtime-harness.ts";
import { DAEMON_SOCKET } from "../../support/runtime-socket-proxy.ts";
import { openTempDir } from "../../support/temp-dir.ts";

const CONFIG = join(import.meta.dirname, "..", "..", "..", "deploy", "docker-proxy.conf");
const nginx = findProgram("nginx");

/** Each one leads to more than this service needs. */
const REFUSED: readonly [string, string][] = [
  ["POST", "/containers/abc/exec"],
  ["POST", "/exec/abc/start"],
  ["POST", "/containers/abc/attach"],
  ["PUT", "/containers/abc/archive?path=/"],
  ["GET", "/containers/abc/archive?path=/data"],
  ["POST", "/commit?container=abc"],
  ["GET", "/containers/abc/export"],
  ["DELETE", "/images/enginehouse"],
  ["POST", "/swarm/init"],
  ["POST", "/plugins/pull"],
  ["POST", "/volumes/prune"],
  ["GET", "/containers/abc/../../exec/json"],
  ["GET", "/containers/%2e%2e/json"],
  ["GET", "/images/a/%2e%2e/b/json"],
  ["POST", "//containers/create"],
];

describe("the requests to the Docker daemon", () => {
  it.each(REFUSED)("%s %s is not one of them", (method, path) => {
    expect(isDaemonEndpoint(method, path)).toBe(false);
  });

  it("are those of the proxy's configuration in deploy/", async () => {
    const [, block = ""] =
      /# endpoints\n(.*) +# end of endpoints/s.exec(await readFile(CONFIG, "utf8")) ?? [];
    const listed = block.split("\n").map((line) => line.trim());
    expect(listed.filter((line) => line !== "")).toEqual(
      DAEMON_ENDPOINTS.map((endpoint) => `"~${toEndpointPattern(endpoint)}" 1;`),
    );
  });
});

describe.skipIf(nginx === undefined || !isDockerAvailable() || DAEMON_SOCKET === undefined)(
  "nginx with the configuration in deploy/",
  () => {
    it("passes everything that an engine's life needs, and refuses the rest", async () => {
      await using stack = new AsyncDisposableStack();
      const subject = await openDockerSubject();
      stack.defer(() => subject.close());
      const socketPath = await openProxy(stack);
      const instanceId = `proxied-${randomUUID()}`;
      const dockerHost = `unix://${socketPath}`;
      const options = { instanceId, marked: false, dockerHost, log: quietLog, callTimeoutMs: 30_000 };
      const runtime = stack.use(await openDockerRuntime(options));
      stack.defer(() => runtime.removeInstance());

      await runtime.markInstance();
      await runtime.check();
      await using record = recordEvents(runtime);
      const spec = await subject.makeSpec();
      expect(await runtime.resolveImage(subject.fixture.tag)).toBe(spec.imageId);
      const containerId = await boot(runtime, spec);
      await expect.poll(() => record.events.length).toBeGreaterThan(0);
      await runtime.pause(containerId);
      await runtime.unpause(containerId);
      expect((await runtime.stats(containerId)).memoryBytes).toBeGreaterThan(0);
      expect((await runtime.logs(containerId, 10)).length).toBeGreaterThan(0);
      await runtime.stop(containerId, 1);
      expect((await observeOne(runtime, spec.engineId)).state).toBe("exited");
      expect(await runtime.hasData(spec.volumeName)).toBe(true);
      await runtime.remove(containerId);
      await runtime.removeData(spec.volumeName);

      for (const [method, path] of REFUSED) {
        expect([method, path, await send(socketPath, method, path)]).toEqual([method, path, 403]);
      }
    });
  },
);

/** Runs nginx with the configuration of deploy/, with other paths. Returns the path of its socket. */
async function openProxy(stack: AsyncDisposableStack): Promise<string> {
  const { path } = stack.use(await openTempDir());
  const socketPath = join(path, "docker.sock");
  const text = (await readFile(CONFIG, "utf8"))
    .replaceAll("/run/enginehouse", path)
    .replaceAll("unix:/var/run/docker.sock", `unix:${DAEMON_SOCKET}`)
    .replace("worker_processes", `${userInfo().uid === 0 ? "user root;\n" : ""}worker_processes`);
  const config = join(path, "proxy.conf");
  await writeFile(config, text);
  const child: ChildProcess = spawn(nginx ?? "", ["-c", config, "-p", path, "-g", "daemon off;"], {
    stdio: ["ignore", "ignore", "inherit"],
  });
  stack.defer(async () => {
    if (child.exitCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    await exited;
  });
  await expect.poll(() => send(socketPath, "GET", "/_ping").catch(() => undefined)).toBe(200);
  return socketPath;
}

async function send(socketPath: string, method: string, path: string): Promise<number | undefined> {
  const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
  const sent = request({ socketPath, method, path }, (response) => {
    response.resume();
    resolve(response.statusCode);
  });
  sent.once("error", reject);
  sent.end();
  return promise;
}
