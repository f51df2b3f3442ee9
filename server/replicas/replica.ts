import { randomUUIDv7 } from "node:crypto";
import { readFile, readlink } from "node:fs/promises";
import {
  deleteReplicas,
  insertReplica,
  listReplicas,
  recordHeartbeat,
  type ReplicaRowAge,
} from "../../db/replicas.ts";
import type { Db } from "../../db/client.ts";
import { findProcess } from "../../db/process-identity.ts";
import type { BaseContext } from "../context.ts";

/** This process in the eyes of the others: a row with a heartbeat. */
export interface Replica {
  readonly id: string;
  /** False once no heartbeat got through for a lease: then this process must cause no effects any more. */
  holdsLease(): boolean;
}

type ReplicaContext = Pick<BaseContext, "db" | "config">;

/** Of a database that stays slow the next beat of the loop hears, too. */
const BEAT_TRIES = 3;

/** The row of this process. Beats are sent by a loop; the lease counts from before a beat was sent. */
export class HeldReplica implements Replica {
  readonly id: string;
  readonly #ctx: ReplicaContext;
  #beatAt: number;
  #declaredDead = false;

  constructor(ctx: ReplicaContext, id: string, beatAt: number) {
    this.#ctx = ctx;
    this.id = id;
    this.#beatAt = beatAt;
  }

  holdsLease(): boolean {
    return !this.#declaredDead && performance.now() - this.#beatAt < this.#ctx.config.leaseMs;
  }

  /** True when others have declared this process dead: it must go. */
  get declaredDead(): boolean {
    return this.#declaredDead;
  }

  async beat(): Promise<void> {
    let tookMs: number;
    let tries = 0;
    do {
      tries += 1;
      const sentAt = performance.now();
      if (!(await recordHeartbeat(this.#ctx.db, this.id))) {
        this.#declaredDead = true;
        return;
      }
      // One that hung with the database may be answered after a later one.
      this.#beatAt = Math.max(this.#beatAt, sentAt);
      tookMs = performance.now() - sentAt;
      // The lease counts from before the beat: after one that took long, little is left of it.
    } while (tookMs > this.#ctx.config.leaseMs / 3 && tries < BEAT_TRIES);
  }

  /** Takes the row away, so that the next process need not wait for the lease to pass. */
  async leave(): Promise<void> {
    await deleteReplicas(this.#ctx.db, [this.id]);
  }
}

/** `place.db` may be a transaction; beats go through the pool. */
export async function registerReplica(
  ctx: ReplicaContext,
  place: { db: Db; runtimeHost: string },
): Promise<HeldReplica> {
  const { runtimeHost } = place;
  const id = randomUUIDv7();
  const beatAt = performance.now();
  await insertReplica(place.db, { id, runtimeHost, processIdentity: await findOwnIdentity() });
  return new HeldReplica(ctx, id, beatAt);
}

/**
 * Takes away the rows of replicas that are dead, and returns the others. One is dead when its process is provably
 * gone from this very system, or when it was silent for a lease while `unbroken` says that we were not: an outage of
 * the database makes everybody silent and kills nobody.
 */
export async function removeDeadReplicas(
  ctx: Pick<BaseContext, "config"> & { db: Db },
  seen: { ownId: string; unbroken: boolean },
): Promise<{ dead: string[]; alive: ReplicaRowAge[] }> {
  const others = (await listReplicas(ctx.db)).filter((replica) => replica.id !== seen.ownId);
  const dead: string[] = [];
  const alive: ReplicaRowAge[] = [];
  for (const replica of others) {
    const silent = seen.unbroken && replica.silentMs > ctx.config.leaseMs;
    if (silent || (await isProvablyGone(replica.processIdentity))) dead.push(replica.id);
    else alive.push(replica);
  }
  await deleteReplicas(ctx.db, dead);
  return { dead, alive };
}

/** Boot, pid namespace, pid and start time name one process for good; null where the system does not tell. */
async function findOwnIdentity(): Promise<string | null> {
  const space = await findProcessSpace();
  const own = await findProcess(process.pid);
  return space === undefined || own === undefined ? null : `${space}/${process.pid}/${own.startedAt}`;
}

async function isProvablyGone(identity: string | null): Promise<boolean> {
  const space = await findProcessSpace();
  if (identity === null || space === undefined || !identity.startsWith(`${space}/`)) return false;
  const [pid, startedAt] = identity.slice(space.length + 1).split("/", 2);
  const found = await findProcess(Number(pid));
  return found === undefined || found.startedAt !== startedAt;
}

/** Only within one boot and one pid namespace does a pid mean the same to both of us. */
async function findProcessSpace(): Promise<string | undefined> {
  try {
    const [boot, namespace] = await Promise.all([
      readFile("/proc/sys/kernel/random/boot_id", "utf8"),
      readlink("/proc/self/ns/pid"),
    ]);
    return `${boot.trim()}/${namespace}`;
  } catch {
    // Not Linux: others wait for the lease to pass instead.
    return undefined;
  }
}
