import type { EngineRow } from "../../../db/engines.ts";

/** Where the engine listens: the loopback port that was published for it. null while it has none. */
export function toEndpoint(row: Pick<EngineRow, "hostPort">): string | null {
  return row.hostPort === null ? null : `http://127.0.0.1:${row.hostPort}`;
}
