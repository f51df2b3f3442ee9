import { join } from "node:path";
import type { Database } from "../db/client.ts";
import { OpenStreams } from "./admission/open-streams.ts";
import { Denials } from "./admission/denials.ts";
import { MadeAnchors } from "./audit/anchor-chains.ts";
import { openAuditAppends } from "./audit/append-audit.ts";
import { TamperReports } from "./audit/tamper-reports.ts";
import type { DataDir } from "./boot/data-dir.ts";
import type { BaseContext } from "./context.ts";
import { findEngines } from "../db/engines.ts";
import { findShownEngines } from "../db/shown-engines.ts";
import { EngineConnections } from "./engine-contract/connections.ts";
import { RateLimits } from "./admission/rate-limits.ts";
import { EngineReads } from "./engines/access/engine-reads.ts";
import { EngineHolds } from "./engines/access/engine-holds.ts";
import { FullVolumes } from "./engines/access/full-volumes.ts";
import { MemoryKills } from "./engines/reconcile/memory-kills.ts";
import { Reconciler } from "./engines/reconcile/reconciler.ts";
import { TakenPorts } from "./engines/reconcile/taken-ports.ts";
import { RunningCalls } from "./idempotency/running-calls.ts";
import { openPlatformKeyInserts } from "./keys/issue-platform-key.ts";
import { KeyStates } from "./keys/key-states.ts";
import type { Keyring } from "./keys/keyring.ts";
import { OpenedKeys } from "./keys/opened-keys.ts";
import type { LogOutput } from "./log-output.ts";
import { DrainState } from "./replicas/drain-state.ts";
import { LeaseGuard } from "./replicas/lease-guard.ts";
import type { Replica } from "./replicas/replica.ts";
import type { EngineRuntime } from "./runtime/engine-runtime.ts";
import { Secrets } from "./secrets/secrets.ts";
import { FairSlots } from "./time/fair-slots.ts";
import { closeTurns } from "./turns/drain-turns.ts";
import { DataKeyFiles } from "./turns/log/data-key-files.ts";
import { DataKeys } from "./turns/log/data-keys.ts";
import { TurnLog } from "./turns/log/turn-log.ts";
import { TurnSeals } from "./turns/log/turn-seals.ts";
import { TURN_TIMING, type TurnTiming } from "./turns/model/turn-timing.ts";
import { TurnRegistry } from "./turns/turn-registry.ts";
import { IsoTime } from "./turns/upstream/iso-time.ts";
import { LingeringHolds } from "./turns/upstream/lingering-holds.ts";

/** A walk along an audit chain keeps a connection and a good part of a core busy. */
const AUDIT_WALKS = 2;

/** Every object that lives as long as the process. Only the API and the loops get all of it. */
export type AppContext = ReturnType<typeof composeDomain>;

export interface DomainParts extends Pick<BaseContext, "config" | "log" | "clock" | "metrics"> {
  database: Pick<Database, "db" | "raw">;
  instanceId: string;
  runtime: EngineRuntime;
  replica: Replica;
  keyring: Keyring;
  /** undefined: the log is not written to an output of ours. */
  output?: Pick<LogOutput, "error"> | undefined;
  /** undefined: nothing is written in it. */
  dataDir?: DataDir | undefined;
}

/**
 * Makes the objects of the domain over a database, a runtime and a replica. `stack` closes them in reverse order; the
 * caller owns the database, the runtime and the replica. Nothing starts here: loops and servers come later.
 */
export function composeDomain(parts: DomainParts, stack: AsyncDisposableStack) {
  const { database, ...given } = parts;
  const base = { ...given, db: database.db, raw: database.raw };
  const { keyring } = base;
  const audit = openAudit(base, stack);
  const { tamperReports } = audit;
  const openedKeys = new OpenedKeys(keyring, tamperReports);
  const connections = stack.use(new EngineConnections(new Secrets(Object.values(base.config.passthrough))));
  const takenPorts = new TakenPorts(base.clock);
  const memoryKills = new MemoryKills(base.clock);
  // Of three connections or more, one for transactions stays free for the reconciler.
  const recordSlots = new FairSlots(Math.max(1, Math.ceil(base.config.databasePool / 2) - 1));
  const holds = new EngineHolds();
  const engineReads = new EngineReads(async (users) => findEngines(base.db, users));
  const fullVolumes = new FullVolumes();
  const shownEngines = new EngineReads(async (users) => findShownEngines(base.db, users));
  const lease = stack.use(new LeaseGuard(base.replica));
  const reconciler = new Reconciler({
    ...base,
    keyring,
    tamperReports,
    connections,
    takenPorts,
    memoryKills,
    keptEngines: holds.kept,
  });
  stack.defer(() => reconciler.close());
  const turns = composeTurns({ ...base, keyring, reconciler }, stack);
  return {
    ...base,
    keyring,
    openedKeys,
    connections,
    takenPorts,
    memoryKills,
    recordSlots,
    holds,
    engineReads,
    fullVolumes,
    shownEngines,
    lease,
    reconciler,
    ...turns,
    keyStates: new KeyStates({ ...base, keyring, tamperReports }),
    rateLimits: new RateLimits(base),
    platformKeyInserts: openPlatformKeyInserts(base.db),
    ...audit,
    openStreams: new OpenStreams(base.clock),
    runningCalls: new RunningCalls(),
    drain: new DrainState(),
  };
}

type TurnParts = ConstructorParameters<typeof TurnRegistry>[0] &
  Omit<ConstructorParameters<typeof TurnLog>[0], "seals"> &
  Omit<ConstructorParameters<typeof DataKeys>[0], "files"> &
  Omit<ConstructorParameters<typeof LingeringHolds>[0], "turnTiming"> &
  Pick<DomainParts, "config" | "dataDir">;

function composeTurns(parts: TurnParts, stack: AsyncDisposableStack) {
  const turns = new TurnRegistry(parts);
  const dataKeys = new DataKeys({ ...parts, files: openDataKeyFiles(parts) });
  const seals = new TurnSeals({ ...parts, dataKeys });
  const turnLog = new TurnLog({ ...parts, seals });
  const turnTiming: TurnTiming = TURN_TIMING;
  const lingeringHolds = new LingeringHolds({ ...parts, turnTiming });
  stack.defer(() => dataKeys.keep());
  stack.defer(() => closeTurns({ ...parts, turns, turnLog, turnTiming, lingeringHolds }));
  return { turns, dataKeys, seals, turnLog, turnTiming, lingeringHolds, isoTime: new IsoTime() };
}

function openDataKeyFiles({
  config,
  dataDir,
}: Pick<DomainParts, "config" | "dataDir">): DataKeyFiles | undefined {
  const folder = config.dataKeysDir ?? (dataDir && join(config.dataDir, "data-keys"));
  return folder === undefined ? undefined : new DataKeyFiles(folder);
}

function openAudit(base: Pick<BaseContext, "db" | "clock" | "log">, stack: AsyncDisposableStack) {
  const auditAppends = openAuditAppends(base.db);
  const denials = new Denials({ ...base, auditAppends });
  stack.defer(() => denials.close());
  return {
    auditAppends,
    denials,
    tamperReports: new TamperReports({ ...base, auditAppends }),
    madeAnchors: new MadeAnchors(),
    auditWalks: new FairSlots(AUDIT_WALKS),
  };
}
