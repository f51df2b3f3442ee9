import { listVolumesToKeep, markAllDue } from "../../../db/engines.ts";
import { appendAudit } from "../../audit/append-audit.ts";
import type { AuditAction } from "../../audit/audit-entry.ts";
import { DomainError } from "../../errors.ts";
import { findEarlierWork } from "../../idempotency/find-earlier-work.ts";
import type { IdempotencyRecord } from "../../idempotency/idempotency-record.ts";
import { RuntimeFailure, type EngineRuntime } from "../../runtime/engine-runtime.ts";
import { toRuntimeError } from "./await-reconcile.ts";
import type { OperationContext } from "./operation-context.ts";

export interface AcceptRuntimeInput {
  /** Why the operator accepts the runtime. */
  reason: string;
  idempotency: IdempotencyRecord;
}

export interface AcceptedRuntime {
  runtimeHost: string;
  engines: number;
  /** Of the engines that have run before. Each of them gets `volume_missing`, and no empty volume. */
  volumesMissing: number;
}

type AcceptContext = Pick<OperationContext, "db" | "log" | "runtime" | "actor" | "requestId">;

const NOT_ACCEPTED = "nothing was accepted";

/**
 * Makes the runtime that answers now count as this installation's, although it lacks the marker. From then on its
 * absences count, so every engine becomes due. Throws RUNTIME_UNCHANGED if the runtime has the marker, and
 * RUNTIME_UNREACHABLE if it does not answer.
 */
export async function acceptRuntime(ctx: AcceptContext, input: AcceptRuntimeInput): Promise<AcceptedRuntime> {
  const { runtime } = ctx;
  const isResumed = (await findEarlierWork(input.idempotency, async (host) => host)) !== undefined;
  const isChanged = await isRuntimeChanged(runtime);
  if (!isChanged && !isResumed) {
    const problem = `the runtime ${runtime.host} has this installation's marker`;
    throw new DomainError("RUNTIME_UNCHANGED", `${problem}: there is nothing to accept`);
  }
  const reply = await observeRuntime(ctx);
  const record = { ...reply, reason: input.reason };
  if (isChanged) {
    await ctx.db.transaction(async (tx) => {
      await input.idempotency.setSubject(tx, runtime.host);
      await appendAudit(tx, toEntry(ctx, "runtime.accept_requested", record));
    });
    await onRuntime(() => runtime.markInstance({ acceptsAnyHost: true }));
  }
  await ctx.db.transaction(async (tx) => {
    await markAllDue(tx, runtime.host);
    await input.idempotency.complete(tx, reply);
    await appendAudit(tx, toEntry(ctx, "runtime.accepted", record));
  });
  ctx.log.warn({ ...record, actor: ctx.actor.name }, "an operator has accepted the runtime");
  return reply;
}

function toEntry(ctx: AcceptContext, action: AuditAction, metadata: Readonly<Record<string, unknown>>) {
  return { scope: "platform", actor: ctx.actor, action, requestId: ctx.requestId, metadata };
}

async function isRuntimeChanged(runtime: EngineRuntime): Promise<boolean> {
  try {
    await runtime.check();
    return false;
  } catch (error) {
    if (error instanceof RuntimeFailure && error.kind === "changed") return true;
    throw toRuntimeError(error, NOT_ACCEPTED);
  }
}

/** What an acceptance means for the engines on record. */
async function observeRuntime(ctx: AcceptContext): Promise<AcceptedRuntime> {
  const { host: runtimeHost } = ctx.runtime;
  const engines = await listVolumesToKeep(ctx.db, runtimeHost);
  const { volumes } = await onRuntime(() => ctx.runtime.observeAll());
  const present = new Set(volumes.map(({ volumeName }) => volumeName));
  const missing = engines.filter(({ volumeName, wasReady }) => wasReady && !present.has(volumeName));
  return { runtimeHost, engines: engines.length, volumesMissing: missing.length };
}

async function onRuntime<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw toRuntimeError(error, NOT_ACCEPTED);
  }
}
