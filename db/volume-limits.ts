import { sql } from "drizzle-orm";
import type { Db } from "./client.ts";

/** How large the volume of an engine may be by the present policy of its product. */
export interface VolumeLimit {
  engineId: string;
  volumeName: string;
  /** MiB. null: the policy sets no limit. */
  limitMb: number | null;
}

export async function listVolumeLimits(db: Db, runtimeHost: string): Promise<VolumeLimit[]> {
  return db.execute(sql`
    select engines.id as "engineId", engines.volume_name as "volumeName",
      (products.policy -> 'resources' ->> 'volumeMb')::int as "limitMb"
    from engines join products on products.id = engines.product_id
    where engines.runtime_host = ${runtimeHost}`) as unknown as Promise<VolumeLimit[]>;
}
