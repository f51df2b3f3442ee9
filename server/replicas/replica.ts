import { randomUUIDv7 } from "node:crypto";
import type { Db } from "../../db/client.ts";
import { deleteReplicas, insertReplica, recordHeartbeat } from "../../db/replicas.ts";
import type { BaseContext } from "../context.ts";
import { findOwnProcessIdentity } from "./replica-process.ts";

/** This process, as other replicas see it: a row with a heartbeat. */
export interface Replica {
  readonly id: string;
  /** False after one lease without a successful heartbeat. Then this process must cause no effects. */
  holdsLease(): boolean;
}

type ReplicaContext = Pick<BaseContext, "config"> & { db: Db };

/** Further attempts are left to the heartbeat loop. */
const MAX_ATTEMPTS = 3;

/** The replica of this process. The heartbeat loop renews its lease, which counts from before a heartbeat was sent. */
export class OwnReplica implements Replica {
  readonly id: string;
  readonly #ctx: ReplicaContext;
  #heartbeatAt: number;
  #isDeclaredDead = false;

  constructor(ctx: ReplicaContext, id: string, heartbeatAt: number) {
    this.#ctx = ctx;
    this.id = id;
    this.#heartbeatAt = heartbeatAt;
  }

  holdsLease(): boolean {
    return !this.#isDeclaredDead && performance.now() - this.#heartbeatAt < this.#ctx.config.leaseMs;
  }

  /** True when another replica has deleted this one's row. Then this process must exit. */
  get isDeclaredDead(): boolean {
    return this.#isDeclaredDead;
  }

  /** Sends another heartbeat after a slow one, because a slow one leaves little of its lease. */
  async sendHeartbeat(): Promise<void> {
    let tookMs: number;
    let attempts = 0;
    do {
      attempts += 1;
      const sentAt = performance.now();
      if (!(await recordHeartbeat(this.#ctx.db, this.id))) {
        this.#isDeclaredDead = true;
        return;
      }
      // The answer to a heartbeat that hung may arrive after the answer to a later one.
      this.#heartbeatAt = Math.max(this.#heartbeatAt, sentAt);
      tookMs = performance.now() - sentAt;
    } while (tookMs > this.#ctx.config.leaseMs / 3 && attempts < MAX_ATTEMPTS);
  }

  /** Deletes the row, so that the next replica does not wait for the lease to expire. */
  async deregister(): Promise<void> {
    await deleteReplicas(this.#ctx.db, [this.id]);
  }
}

/** Inserts the row with `registration.db`, which may be a transaction. Heartbeats use `ctx.db`. */
export async function registerReplica(
  ctx: ReplicaContext,
  registration: { db: Db; runtimeHost: string },
): Promise<OwnReplica> {
  const { db, runtimeHost } = registration;
  const id = randomUUIDv7();
  const heartbeatAt = performance.now();
  await insertReplica(db, { id, runtimeHost, processIdentity: await findOwnProcessIdentity() });
  return new OwnReplica(ctx, id, heartbeatAt);
}
