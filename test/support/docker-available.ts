import { request } from "node:http";
import { inject } from "vitest";

/** The global setup finds out once for each test run. Use: `describe.skipIf(!isDockerAvailable())`. */
export function isDockerAvailable(): boolean {
  return inject("dockerAvailable");
}

/**
 * Whether a daemon answers at DOCKER_HOST or the default socket.
 *
 * @throws if no daemon answers although REQUIRE_DOCKER=1 requires one.
 */
export async function findDocker(): Promise<boolean> {
  const host = process.env["DOCKER_HOST"] || "unix:///var/run/docker.sock";
  // A busy daemon may miss one deadline. Then the whole test run would skip its Docker tests.
  const answers = (await ping(host)) || (await ping(host)) || (await ping(host));
  if (!answers && process.env["REQUIRE_DOCKER"] === "1") {
    throw new Error(`REQUIRE_DOCKER=1, and no Docker daemon answers at ${host}`);
  }
  return answers;
}

async function ping(host: string): Promise<boolean> {
  const { hostname, port } = new URL(host.replace(/^unix:/, "tcp:"));
  const address = host.startsWith("unix://")
    ? { socketPath: host.slice("unix://".length) }
    : { hostname, port };
  return new Promise((resolve) => {
    const sent = request({ ...address, path: "/_ping", timeout: 5_000 }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    sent.once("timeout", () => sent.destroy());
    sent.once("error", () => resolve(false));
    sent.end();
  });
}
