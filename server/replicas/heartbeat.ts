import type { BaseContext } from "../context.ts";
import { removeDeadReplicas } from "./remove-dead-replicas.ts";
import type { OwnReplica } from "./replica.ts";

export interface HeartbeatInput {
  replica: OwnReplica;
  /** Ends what dead replicas left behind. Called again for the same ids after it failed. */
  recover(deadReplicaIds: string[]): Promise<unknown>;
}

/**
 * Sends the heartbeats of this replica, and removes the rows of dead ones. It judges others only after one lease of
 * its own unbroken heartbeats, so that a database outage kills no replica.
 */
export class Heartbeat {
  readonly #ctx: Pick<BaseContext, "db" | "config">;
  readonly #input: HeartbeatInput;
  /** Dead replicas whose rows are gone but whose turns may not be recovered yet. */
  readonly #unrecovered = new Set<string>();
  #unbrokenSince = performance.now();

  constructor(ctx: Pick<BaseContext, "db" | "config">, input: HeartbeatInput) {
    this.#ctx = ctx;
    this.#input = input;
  }

  /** Does nothing more once another replica has declared this one dead. */
  async send(): Promise<void> {
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
    for (const id of dead) this.#unrecovered.add(id);
    if (this.#unrecovered.size === 0) return;
    await this.#input.recover([...this.#unrecovered]);
    this.#unrecovered.clear();
  }
}
