import { randomUUID } from "node:crypto";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { openDockerClient } from "../../../server/runtime/docker/client.ts";
import { openDockerRuntime } from "../../../server/runtime/docker/runtime.ts";
import { buildReferenceImage } from "../../../server/runtime/docker/reference-image.ts";
import { isDockerAvailable } from "../../support/docker-available.ts";
import { boot, quietLog } from "../../support/runtime-harness.ts";
import { makeSpec } from "../../support/runtime-spec.ts";
import { DAEMON_SOCKET, openSocketProxy } from "../../support/runtime-socket-proxy.ts";
import { openTempDir } from "../../support/temp-dir.ts";

describe.skipIf(!isDockerAvailable() || !DAEMON_SOCKET)("the reference engine's image", () => {
  it("is built once, without a registry, and runs as a healthy engine", async () => {
    const name = `enginehouse-reference-test-${process.pid}`;
    const direct = process.env["DOCKER_HOST"];
    // Other test files build from the same content at the same time. The image under its normal name keeps the layers.
    await buildReferenceImage({ dockerHost: direct, log: quietLog });
    using client = await openDockerClient({ dockerHost: direct, callTimeoutMs: 60_000 });
    await using catalog = await openTempDir();
    // The image's user is another user, and must be able to read the folder.
    await chmod(catalog.path, 0o755);
    await using home = await openTempDir();
    const socketPath = join(home.path, "docker.sock");
    await using proxy = await openSocketProxy(socketPath, DAEMON_SOCKET ?? "");
    const options = { dockerHost: `unix://${socketPath}`, log: quietLog };
    const own = { instanceId: `reference-${randomUUID()}`, marked: false, callTimeoutMs: 60_000 };
    await using runtime = await openDockerRuntime({ ...options, ...own });
    const tag = await buildReferenceImage({ ...options, name });
    try {
      expect(tag).toMatch(new RegExp(`^${name}:[0-9a-f]{12}$`));
      expect(await buildReferenceImage({ ...options, name })).toBe(tag);
      expect(proxy.requests().match(/^POST \S*\/build\?/gm)).toHaveLength(1);
      expect((await client.docker.getImage(tag).inspect()).Config.User).toBe("10001:10001");
      const imageId = await runtime.resolveImage(tag);
      const network = `enginehouse-test-${randomUUID()}`;
      await boot(runtime, await makeSpec({ imageId, network, catalogPath: catalog.path }));
    } finally {
      await runtime.removeInstance();
      await client.docker.getImage(tag).remove({ force: true });
    }
  });
});
