import type { BaseContext } from "../context.ts";
import { removeDeadReplicas } from "./remove-dead-replicas.ts";
import type { OwnReplica } from "./replica.ts";

export interface HeartbeatInput {
  replica: OwnReplica;
  /** Ends the turns of dead replicas. If it fails, the next heartbeat calls it again with the same ids. */
  recoverTurnsOf(deadReplicaIds: string[]): Promise<unknown>;
}

/**
 * Sends the heartbeats of this replica, and removes the rows of dead ones. A replica whose process is gone is dead at
 * once. A silent replica is dead only after one lease of our own unbroken heartbeats, so that a database outage kills
 * no replica.
 */
export class Heartbeat {
  readonly #ctx: Pick<BaseContext, "db" | "config">;
  readonly #input: HeartbeatInput;
  /** Dead replicas whose rows are gone but whose turns may not be recovered yet. */
  readonly #deadToRecover = new Set<string>();
  #unbrokenSince = performance.now();

  constructor(ctx: Pick<BaseContext, "db" | "config">, input: HeartbeatInput) {
    this.#ctx = ctx;
    this.#input = input;
  }

  /** Stops after its own heartbeat if another replica has declared this one dead. */
  async sendAndRecover(): Promise<void> {
    const { replica } = this.#input;
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
    for (const id of dead) this.#deadToRecover.add(id);
    if (this.#deadToRecover.size === 0) return;
    await this.#input.recoverTurnsOf([...this.#deadToRecover]);
    this.#deadToRecover.clear();
  }
}
