import { randomUUID } from "node:crypto";
import { openDatabase, type Database } from "../../db/client.ts";
import { insertReplica } from "../../db/replicas.ts";
import type { runIdempotent } from "../../server/idempotency/run-idempotent.ts";
import { RunningCalls } from "../../server/idempotency/running-calls.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { openLog } from "../../server/log.ts";
import { openTestDatabase } from "../support/test-database.ts";

export type IdempotencyContext = Parameters<typeof runIdempotent>[0];

export interface Idempotency extends AsyncDisposable {
  readonly url: string;
  readonly database: Database;
  /** The context of a new replica with a heartbeat. */
  openReplica(): Promise<IdempotencyContext>;
}

/** A database of its own, and replicas on it that share the master keys. */
export async function openIdempotency(): Promise<Idempotency> {
  await using stack = new AsyncDisposableStack();
  const { url } = stack.use(await openTestDatabase());
  const database = stack.use(openDatabase({ url, poolSize: 5, applicationName: "idempotency-test" }));
  const keyring = openKeyring(generateMasterKeys());
  const openReplica = async (): Promise<IdempotencyContext> => {
    const id = randomUUID();
    await insertReplica(database.db, { id, runtimeHost: "test", processIdentity: null });
    return {
      db: database.db,
      keyring,
      replica: { id },
      runningCalls: new RunningCalls(),
      config: { leaseMs: 15_000 } as IdempotencyContext["config"],
      log: openLog({ level: "silent", pretty: false }),
    };
  };
  const opened = stack.move();
  return { url, database, openReplica, [Symbol.asyncDispose]: async () => opened.disposeAsync() };
}
