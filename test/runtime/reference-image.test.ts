import { randomUUID } from "node:crypto";
import { chmod } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { openDockerClient } from "../../server/runtime/docker-client.ts";
import { openDockerRuntime } from "../../server/runtime/docker-runtime.ts";
import { buildReferenceImage } from "../../server/runtime/reference-image.ts";
import { isDockerAvailable } from "../support/docker-available.ts";
import { boot, quietLog } from "../support/runtime-harness.ts";
import { makeSpec } from "../support/runtime-spec.ts";
import { openTempDir } from "../support/temp-dir.ts";

describe.skipIf(!isDockerAvailable())("the reference engine's image", () => {
  it("is built without a registry, once, and runs as an engine that is ready", async () => {
    const name = `enginehouse-reference-test-${process.pid}`;
    const dockerHost = process.env["DOCKER_HOST"];
    using client = await openDockerClient({ dockerHost, callTimeoutMs: 30_000 });
    await using catalog = await openTempDir();
    // The image's user is somebody else, who has to read it.
    await chmod(catalog.path, 0o755);
    const options = { dockerHost, log: quietLog };
    const instanceId = `reference-${randomUUID()}`;
    await using runtime = await openDockerRuntime({ ...options, instanceId, marked: false });
    const tag = await buildReferenceImage({ ...options, name });
    try {
      expect(tag).toMatch(new RegExp(`^${name}:[0-9a-f]{12}$`));
      const before = await client.docker.getImage(tag).inspect();
      expect(await buildReferenceImage({ ...options, name })).toBe(tag);
      expect((await client.docker.getImage(tag).inspect()).Id).toBe(before.Id);
      expect(before.Config.User).toBe("10001:10001");
      const imageId = await runtime.resolveImage(tag);
      const network = `enginehouse-test-${randomUUID()}`;
      await boot(runtime, await makeSpec({ imageId, network, catalogPath: catalog.path }));
    } finally {
      await runtime.removeInstance();
      await client.docker.getImage(tag).remove({ force: true });
    }
  });
});
