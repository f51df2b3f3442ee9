import type { RuntimeChoice } from "./choose-runtime.ts";
import type { PortRange } from "./port-range.ts";

interface DemoSettings {
  adminKey: string;
  runtime: RuntimeChoice;
  dataDir: string;
  /** A network of the demo's own, which the clean-up can remove. */
  network: string;
  ports: PortRange;
}

/** The environment of the service. Leaves out the shell's ORCH_* variables, which belong to another installation. */
export function toServiceEnvironment(
  inherited: NodeJS.ProcessEnv,
  { adminKey, runtime, dataDir, network, ports }: DemoSettings,
): NodeJS.ProcessEnv {
  const others = Object.entries(inherited).filter(([name]) => !name.startsWith("ORCH_"));
  return {
    ...Object.fromEntries(others),
    NODE_ENV: "development",
    ORCH_ADMIN_KEY: adminKey,
    ORCH_DATA_DIR: dataDir,
    ORCH_HOST: "127.0.0.1",
    ORCH_PORT: "0",
    ORCH_PORT_MIN: String(ports.min),
    ORCH_PORT_MAX: String(ports.max),
    ORCH_ENGINE_BACKEND: runtime.kind,
    ...(runtime.kind === "docker" && { ORCH_ENGINE_IMAGE: runtime.image }),
    ORCH_ENGINE_NETWORK: network,
    ORCH_DRAIN_S: "1",
    ORCH_LOG_LEVEL: "info",
    ORCH_LOG_PRETTY: "false",
  };
}
