import type { Benchmark } from "./benchmark.ts";
import { admit } from "./benchmarks/admit.ts";
import { auditedChanges } from "./benchmarks/audited-changes.ts";
import { enginesGet } from "./benchmarks/engines-get.ts";
import { fairness } from "./benchmarks/fairness.ts";
import { firstEvent } from "./benchmarks/first-event.ts";
import { eventLatency } from "./benchmarks/event-latency.ts";
import { flood } from "./benchmarks/flood.ts";
import { manyEngines } from "./benchmarks/many-engines.ts";
import { manyTurns } from "./benchmarks/many-turns.ts";
import { provision } from "./benchmarks/provision.ts";
import { quietStreams } from "./benchmarks/quiet-streams.ts";
import { relay200, relay50 } from "./benchmarks/relay.ts";
import { rpcCall } from "./benchmarks/rpc-call.ts";
import { verifiedRows } from "./benchmarks/verified-rows.ts";

/** In the order of the table. */
export const BENCHMARKS: readonly Benchmark[] = [
  relay50,
  relay200,
  manyTurns,
  eventLatency,
  firstEvent,
  rpcCall,
  enginesGet,
  admit,
  manyEngines,
  provision,
  quietStreams,
  auditedChanges,
  verifiedRows,
  flood,
  fairness,
];
