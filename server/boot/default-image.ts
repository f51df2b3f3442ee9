import { abortable } from "../time/abortable.ts";
import type { Config } from "../config/config.ts";
import { toErrorMessage } from "../errors.ts";
import type { Log } from "../log.ts";
import { isDockerReachable } from "../runtime/docker/reachable.ts";
import type { EngineRuntime } from "../runtime/engine-runtime.ts";
import { buildReferenceImage } from "../runtime/docker/reference-image.ts";

/**
 * A development start on Docker that names no image runs the reference engine, as one on processes does: its image is
 * built here and now. Where that cannot be, engines that are there go on, and new ones wait for an image. Throws the
 * signal's reason when the start is given up; the daemon may build on.
 */
export async function withDefaultImage(
  config: Config,
  { runtime, log, signal }: { runtime: Pick<EngineRuntime, "kind">; log: Log; signal: AbortSignal },
): Promise<Config> {
  if (runtime.kind !== "docker" || config.engineImage !== undefined || config.production) return config;
  const what = "the reference engine's image cannot be built: set ORCH_ENGINE_IMAGE";
  // A daemon that is away, or hangs, holds no start up.
  if (!(await isDockerReachable(config.dockerHost))) {
    log.warn({}, `${what}, or start again once the Docker daemon answers`);
    return config;
  }
  try {
    const building = buildReferenceImage({ dockerHost: config.dockerHost, log });
    return { ...config, engineImage: await abortable(building, signal) };
  } catch (error) {
    signal.throwIfAborted();
    log.warn({ error: toErrorMessage(error) }, `${what} to provision engines`);
    return config;
  }
}
