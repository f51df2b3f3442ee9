import type { BaseContext } from "../context.ts";
import { toErrorMessage } from "../errors.ts";
import type { EngineRuntime } from "../runtime/engine-runtime.ts";

type ProbeContext = Pick<BaseContext, "config" | "log"> & { runtime: Pick<EngineRuntime, "findOpenTargets"> };

/**
 * Warns if engines can connect to this host or to the cloud's metadata service. A start does not wait for it: the
 * first probe on a daemon builds an image. After the disposal, nothing is logged any more.
 */
export function startNetworkProbe({
  config,
  log,
  runtime,
}: ProbeContext): Disposable & { done: Promise<void> } {
  let isClosed = false;
  const probe = async () => {
    try {
      const reached = await runtime.findOpenTargets(config.engineNetwork);
      if (isClosed || reached.length === 0) return;
      log.warn({ reached, rules: "deploy/engine-firewall.sh" }, "engines reach what a firewall should close");
    } catch (error) {
      // The close of the runtime ends a probe with an error.
      if (isClosed) return;
      log.warn({ error: toErrorMessage(error) }, "the probe of the engines' network failed");
    }
  };
  return { done: probe(), [Symbol.dispose]: () => void (isClosed = true) };
}
