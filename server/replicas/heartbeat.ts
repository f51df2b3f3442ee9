import type { Db } from "../../db/client.ts";
import type { BaseContext } from "../context.ts";
import { removeDeadReplicas } from "./remove-dead-replicas.ts";
import type { OwnReplica } from "./replica.ts";

export type HeartbeatContext = Pick<BaseContext, "config"> & { db: Db };

export interface HeartbeatInput {
  replica: OwnReplica;
  /** Ends the turns of dead replicas. If it fails, it is called again with the same ids. */
  recoverTurnsOf(deadReplicaIds: string[]): Promise<unknown>;
}

/**
 * Sends the heartbeats of this replica, and removes the rows of dead ones. A replica whose process is gone is dead at
 * once. A silent replica is dead only after one lease of our own unbroken heartbeats, so that a database outage kills
 * no replica.
 */
export class Heartbeat {
  readonly #ctx: HeartbeatContext;
  readonly #input: HeartbeatInput;
  /** Dead replicas whose rows are gone but whose turns may not be recovered yet. */
  readonly #deadToRecover = new Set<string>();
  #unbrokenSince = performance.now();

  constructor(ctx: HeartbeatContext, input: HeartbeatInput) {
    this.#ctx = ctx;
    this.#input = input;
  }

  /**
   * Sends a heartbeat, and removes the rows of dead replicas. Stops after its own heartbeat if another replica has
   * declared this one dead. True: there are dead replicas to recover from.
   */
  async send(): Promise<boolean> {
    const { replica } = this.#input;
    const heldBefore = replica.holdsLease();
    try {
      await replica.sendHeartbeat();
    } catch (error) {
      this.#unbrokenSince = performance.now();
      throw error;
    }
    if (replica.isDeclaredDead) return false;
    if (!heldBefore) this.#unbrokenSince = performance.now();
    const unbroken = performance.now() - this.#unbrokenSince >= this.#ctx.config.leaseMs;
    const { dead } = await removeDeadReplicas(this.#ctx, { ownId: replica.id, unbroken });
    for (const id of dead) this.#deadToRecover.add(id);
    return this.#deadToRecover.size > 0;
  }

  /** May take long, so no heartbeat waits for it. */
  async recover(): Promise<void> {
    const dead = [...this.#deadToRecover];
    if (dead.length === 0) return;
    await this.#input.recoverTurnsOf(dead);
    for (const id of dead) this.#deadToRecover.delete(id);
  }
}
