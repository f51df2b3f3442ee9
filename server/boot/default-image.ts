import { abortable } from "../time/abortable.ts";
import type { Config } from "../config/config.ts";
import { toErrorMessage } from "../errors.ts";
import type { Log } from "../log.ts";
import { isDockerReachable } from "../runtime/docker/reachable.ts";
import type { EngineRuntime } from "../runtime/engine-runtime.ts";
import { buildReferenceImage } from "../runtime/docker/reference-image.ts";

/**
 * A development start on Docker without an image runs the reference engine: this builds its image. If that fails, the
 * start continues: existing engines run, and new ones need an image. If the signal aborts, this throws the signal's
 * reason, and the daemon may still complete the build.
 */
export async function withDefaultImage(
  config: Config,
  { runtime, log, signal }: { runtime: Pick<EngineRuntime, "kind">; log: Log; signal: AbortSignal },
): Promise<Config> {
  if (runtime.kind !== "docker" || config.engineImage !== undefined || config.production) return config;
  const problem = "the reference engine's image cannot be built: set ORCH_ENGINE_IMAGE";
  // The check has a short deadline, so a daemon that is down or hangs does not delay the start.
  if (!(await isDockerReachable(config.dockerHost))) {
    log.warn({}, `${problem}, or start again once the Docker daemon answers`);
    return config;
  }
  try {
    const building = buildReferenceImage({ dockerHost: config.dockerHost, log });
    return { ...config, engineImage: await abortable(building, signal) };
  } catch (error) {
    signal.throwIfAborted();
    log.warn({ error: toErrorMessage(error) }, `${problem} to provision engines`);
    return config;
  }
}
