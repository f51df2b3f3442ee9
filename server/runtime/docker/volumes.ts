import type { VolumeInspectInfo } from "dockerode";
import type { DockerContext } from "./context.ts";
import { unlessStatus } from "./failure.ts";
import { createInDocker } from "./create-call.ts";
import { DOCKER_LABEL, toMarkerName, toOwnFilter, toVolumeLabels } from "./labels.ts";
import { assertObjectName } from "./names.ts";
import { RuntimeFailure, type VolumeObservation } from "../engine-runtime.ts";

const MEASURE_TIMEOUT_MS = 120_000;

/** Runs before the container is created, because the daemon silently creates a missing volume for a container. */
export async function ensureVolume(ctx: DockerContext, volumeName: string, engineId: string): Promise<void> {
  await createVolume(ctx, volumeName, toVolumeLabels(ctx.instanceId, engineId));
}

export async function hasVolume(ctx: DockerContext, volumeName: string): Promise<boolean> {
  return (await findOwnVolume(ctx, volumeName)) !== undefined;
}

export async function removeVolume(ctx: DockerContext, volumeName: string): Promise<void> {
  if ((await findOwnVolume(ctx, volumeName)) === undefined) return;
  try {
    await ctx.client.call((docker, abortSignal) =>
      docker.getVolume(volumeName).remove({ abortSignal }).catch(unlessStatus(404)),
    );
  } catch (error) {
    const users = await findVolumeUsers(ctx, volumeName).catch(() => []);
    // The cause is another one, or the daemon cannot name the users now.
    if (users.length === 0) throw error;
    const problem = `the volume ${volumeName} is in use by the container ${users.join(" and ")}`;
    throw new RuntimeFailure("refused", `${problem}: remove that container`);
  }
}

/** The containers with this volume, of every installation and of none. */
async function findVolumeUsers({ client }: DockerContext, volumeName: string): Promise<string[]> {
  const listed = await client.call((docker, abortSignal) =>
    docker.listContainers({ all: true, filters: { volume: [volumeName] }, abortSignal }),
  );
  return listed.map(({ Id: id, Names: [name] }) => `${name?.replace(/^\//, "") ?? ""} (${id.slice(0, 12)})`);
}

/** The volumes of this installation's engines, without the marker. */
export async function listVolumes({ client, instanceId }: DockerContext): Promise<VolumeObservation[]> {
  const { Volumes: volumes } = await client.call((docker, abortSignal) =>
    docker.listVolumes({ filters: toOwnFilter(instanceId), abortSignal }),
  );
  // A daemon without volumes answers null.
  return (volumes ?? []).map((volume) => ({
    volumeName: volume.Name,
    engineId: volume.Labels[DOCKER_LABEL.engine] ?? "",
  }));
}

type MeasuredVolume = Pick<VolumeInspectInfo, "Name" | "UsageData"> & {
  Labels: Partial<Record<string, string>> | null;
};

/** May take a minute. The daemon answers for all volumes, and leaves out what cannot be measured (-1). */
export async function measureVolumes({ client, instanceId }: DockerContext): Promise<Map<string, number>> {
  const usage: unknown = await client.call((docker) => docker.df(), MEASURE_TIMEOUT_MS);
  // Labels are null for a volume without labels, in spite of dockerode's types.
  const { Volumes: volumes } = usage as { Volumes?: MeasuredVolume[] | null };
  const sizes = new Map<string, number>();
  for (const { Name: name, Labels: labels, UsageData: used } of volumes ?? []) {
    if (labels?.[DOCKER_LABEL.instance] !== instanceId || used === null || used === undefined) continue;
    if (used.Size >= 0) sizes.set(name, used.Size);
  }
  return sizes;
}

export async function createMarker(ctx: DockerContext): Promise<void> {
  await createVolume(ctx, toMarkerName(ctx.instanceId), { [DOCKER_LABEL.instance]: ctx.instanceId });
}

/** A volume with the marker's name and without our label is no marker. */
export async function hasMarker(ctx: DockerContext): Promise<boolean> {
  try {
    return (await findOwnVolume(ctx, toMarkerName(ctx.instanceId))) !== undefined;
  } catch (error) {
    if (error instanceof RuntimeFailure && error.kind === "conflict") return false;
    throw error;
  }
}

/** If a volume has the name already, the daemon answers with that volume. Then its labels decide. */
async function createVolume(
  ctx: DockerContext,
  volumeName: string,
  labels: Record<string, string>,
): Promise<void> {
  assertObjectName(volumeName);
  const body = { Name: volumeName, Labels: labels };
  const volume = await createInDocker(ctx.client, { path: "/volumes/create", body });
  assertOwnVolume(ctx, volumeName, volume);
}

/** undefined: the volume does not exist. Throws `conflict` for a volume of another installation. */
async function findOwnVolume(ctx: DockerContext, volumeName: string): Promise<VolumeInspectInfo | undefined> {
  assertObjectName(volumeName);
  const volume = await ctx.client.call((docker, abortSignal) =>
    docker.getVolume(volumeName).inspect({ abortSignal }).catch(unlessStatus(404)),
  );
  if (volume !== undefined) assertOwnVolume(ctx, volumeName, volume);
  return volume;
}

function assertOwnVolume({ instanceId }: DockerContext, volumeName: string, volume: unknown): void {
  // Labels are null for a volume without labels, in spite of dockerode's types.
  const { Labels: labels } = volume as { Labels?: Partial<Record<string, string>> | null };
  if (labels?.[DOCKER_LABEL.instance] === instanceId) return;
  throw new RuntimeFailure("conflict", `the volume ${volumeName} belongs to another installation`);
}
