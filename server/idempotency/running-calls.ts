import type { Replica } from "../replicas/replica.ts";

interface RunningCall {
  procedure: string;
  fingerprint: string;
}

/**
 * The keyed calls that are running in this process, by replica. A claim in the database that names this replica but
 * is not in here was left behind: its call ended while the database could not be told.
 */
const runningByReplica = new WeakMap<Replica, Map<string, RunningCall>>();

/** The call that runs under this key now, else undefined, and then the given call runs under it until disposed. */
export function enterRunning(
  replica: Replica,
  place: { scope: string; key: string },
  call: RunningCall,
): { other: RunningCall } | { leave: Disposable } {
  let running = runningByReplica.get(replica);
  if (running === undefined) {
    running = new Map();
    runningByReplica.set(replica, running);
  }
  const name = JSON.stringify([place.scope, place.key]);
  const other = running.get(name);
  if (other !== undefined) return { other };
  running.set(name, call);
  return { leave: { [Symbol.dispose]: () => running.delete(name) } };
}
