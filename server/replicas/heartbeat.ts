import type { Db } from "../../db/client.ts";
import type { BaseContext } from "../context.ts";
import { removeDeadReplicas } from "./remove-dead-replicas.ts";
import type { OwnReplica } from "./replica.ts";

export type HeartbeatContext = Pick<BaseContext, "config"> & { db: Db };

/**
 * Sends the heartbeats of this replica, and removes the rows of dead ones. A replica whose process is gone is dead at
 * once. A silent replica is dead only after one lease of our own unbroken heartbeats, so that a database outage kills
 * no replica.
 */
export class Heartbeat {
  readonly #ctx: HeartbeatContext;
  readonly #replica: OwnReplica;
  /** Dead replicas whose rows are gone but whose turns may not be taken over yet. */
  readonly #dead = new Set<string>();
  #unbrokenSince = performance.now();

  constructor(ctx: HeartbeatContext, replica: OwnReplica) {
    this.#ctx = ctx;
    this.#replica = replica;
  }

  get replica(): OwnReplica {
    return this.#replica;
  }

  /**
   * Sends a heartbeat, and removes the rows of dead replicas. Stops after its own heartbeat if another replica has
   * declared this one dead.
   */
  async send(): Promise<void> {
    const replica = this.#replica;
    const heldBefore = replica.holdsLease();
    try {
      await replica.sendHeartbeat();
    } catch (error) {
      this.#unbrokenSince = performance.now();
      throw error;
    }
    if (replica.isDeclaredDead) return;
    if (!heldBefore) this.#unbrokenSince = performance.now();
    const unbroken = performance.now() - this.#unbrokenSince >= this.#ctx.config.leaseMs;
    const { dead } = await removeDeadReplicas(this.#ctx, { ownId: replica.id, unbroken });
    for (const id of dead) this.#dead.add(id);
  }

  /**
   * Calls `takeOverFrom` with the dead replicas, if there are any. If it fails, the next call gets the same ids. May take
   * long, so no heartbeat waits for it.
   */
  async recover(takeOverFrom: (deadReplicaIds: string[]) => Promise<unknown>): Promise<void> {
    const dead = [...this.#dead];
    if (dead.length === 0) return;
    await takeOverFrom(dead);
    for (const id of dead) this.#dead.delete(id);
  }
}
