import { randomUUID } from "node:crypto";
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { toMarkerName } from "../../server/runtime/docker/labels.ts";
import { openDockerRuntime } from "../../server/runtime/docker/runtime.ts";
import type { ContainerSpec, EngineRuntime } from "../../server/runtime/engine-runtime.ts";
import { buildFixtureImage, type FixtureImage } from "./runtime-fixture-image.ts";
import { quietLog } from "./runtime-harness.ts";
import { DAEMON_SOCKET, openSocketProxy } from "./runtime-socket-proxy.ts";
import { makeSpec } from "./runtime-spec.ts";
import { openTempDir } from "./temp-dir.ts";

export interface DockerSubject {
  readonly fixture: FixtureImage;
  readonly network: string;
  readonly catalogPath: string;
  open(instanceId: string, marked?: boolean): Promise<EngineRuntime>;
  openUnreachable(): Promise<EngineRuntime>;
  loseMarker(instanceId: string): Promise<void>;
  makeSpec(overrides?: Partial<ContainerSpec>): Promise<ContainerSpec>;
  close(): Promise<void>;
}

/** A real daemon, with an image, a network and a catalog folder for one test file. */
export async function openDockerSubject(): Promise<DockerSubject> {
  const catalog = await openTempDir();
  // The image's user is another user, and must be able to read the folder.
  await chmod(catalog.path, 0o755);
  const fixture = await buildFixtureImage();
  const { docker } = fixture;
  const network = `enginehouse-test-${randomUUID()}`;
  const inspected = await docker.getImage(fixture.tag).inspect();
  // A daemon behind TCP has no proxy. There, requests outside of DAEMON_ENDPOINTS go unnoticed.
  const proxyDir = await openTempDir();
  const proxyPath = join(proxyDir.path, "docker.sock");
  const proxy = DAEMON_SOCKET === undefined ? undefined : await openSocketProxy(proxyPath, DAEMON_SOCKET);
  const dockerHost = proxy === undefined ? process.env["DOCKER_HOST"] : `unix://${proxyPath}`;
  return {
    fixture,
    network,
    catalogPath: catalog.path,
    open: (instanceId, marked = false) =>
      openDockerRuntime({ instanceId, marked, dockerHost, log: quietLog, callTimeoutMs: 30_000 }),
    openUnreachable: () =>
      openDockerRuntime({
        instanceId: "nobody",
        marked: true,
        dockerHost: `unix://${join(catalog.path, "no-such.sock")}`,
        host: "docker:recorded",
        log: quietLog,
      }),
    loseMarker: (instanceId) => docker.getVolume(toMarkerName(instanceId)).remove(),
    makeSpec: (overrides = {}) =>
      makeSpec({ imageId: inspected.Id, network, catalogPath: catalog.path, ...overrides }),
    close: async () => {
      const left = await docker.listNetworks({ filters: { name: [network] } });
      for (const { Id } of left) await docker.getNetwork(Id).remove();
      await fixture[Symbol.asyncDispose]();
      try {
        await proxy?.[Symbol.asyncDispose]();
      } finally {
        await proxyDir.close();
        await catalog.close();
      }
    },
  };
}
