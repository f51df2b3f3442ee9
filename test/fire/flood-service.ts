import { fileURLToPath } from "node:url";
import { ADMIN_KEY, startService, type Service } from "../service/spawn-service.ts";
import { takePortRange } from "../support/ports.ts";

const FLOOD_ENGINE = fileURLToPath(new URL("flood-engine.ts", import.meta.url));

export interface FloodServiceInput {
  dataDir: string;
  databaseUrl: string;
  /** Further settings. */
  more: Readonly<Record<string, string>>;
}

/** A service whose engines write as much as they are asked for. */
export async function startFloodService({ dataDir, databaseUrl, more }: FloodServiceInput): Promise<Service> {
  const ports = takePortRange(4);
  return startService({
    ORCH_DATA_DIR: dataDir,
    ORCH_DATABASE_URL: databaseUrl,
    ORCH_ADMIN_KEY: ADMIN_KEY,
    ORCH_ENGINE_BACKEND: "process",
    ORCH_ENGINE_COMMAND: `${process.execPath} ${FLOOD_ENGINE}`,
    ORCH_PORT_MIN: String(ports.min),
    ORCH_PORT_MAX: String(ports.max),
    ORCH_TURN_MAX_BYTES: "1000000000",
    ORCH_DRAIN_S: "0",
    // A busy machine is no database that hangs.
    ORCH_LEASE_S: "300",
    ...more,
  });
}
