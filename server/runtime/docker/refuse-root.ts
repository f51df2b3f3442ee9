import type { DockerContext } from "./context.ts";
import { RuntimeFailure, type ContainerSpec } from "../engine-runtime.ts";
import { unlessStatus } from "./failure.ts";

/** Throws `refused` if the container would run as root although the configuration does not ask for that. */
export async function refuseRoot({ client }: DockerContext, spec: ContainerSpec): Promise<void> {
  if (!spec.refusesRoot || spec.limits.user !== null) return;
  const image = await client.call((docker) =>
    docker.getImage(spec.imageId).inspect().catch(unlessStatus(404)),
  );
  // If the image is missing, the create call says so.
  if (image === undefined || !isRoot(image.Config.User)) return;
  throw new RuntimeFailure(
    "refused",
    "the image runs as root: name another USER in the image, or set ORCH_ENGINE_USER to a uid (0 allows root)",
  );
}

/** A name other than `root` may also have the uid 0. Only a container could tell. */
function isRoot(user: string | undefined): boolean {
  const [name = ""] = (user ?? "").split(":");
  return name === "" || name === "root" || /^0+$/.test(name);
}
