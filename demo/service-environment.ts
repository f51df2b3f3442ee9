import type { Backend } from "./choose-backend.ts";
import type { PortRange } from "./port-range.ts";

interface DemoSettings {
  adminKey: string;
  backend: Backend;
  dataDir: string;
  /** The demo's own, so that it can go with it. */
  network: string;
  ports: PortRange;
}

/** What the service is told. Settings of the shell that are meant for another installation are left out. */
export function toServiceEnvironment(
  inherited: NodeJS.ProcessEnv,
  { adminKey, backend, dataDir, network, ports }: DemoSettings,
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
    ORCH_ENGINE_BACKEND: backend.kind,
    ...(backend.kind === "docker" && { ORCH_ENGINE_IMAGE: backend.image }),
    ORCH_ENGINE_NETWORK: network,
    ORCH_DRAIN_S: "1",
    ORCH_LOG_LEVEL: "info",
    ORCH_LOG_PRETTY: "false",
  };
}
