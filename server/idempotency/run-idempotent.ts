import {
  completeIdempotencyRecord,
  deleteExpiredIdempotencyRecord,
  findIdempotencyRecord,
  insertIdempotencyRecord,
  releaseIdempotencyRecord,
  setIdempotencySubject,
  takeOverIdempotencyRecord,
  type IdempotencyOwner,
  type IdempotencyRow,
} from "../../db/idempotency.ts";
import type { BaseContext } from "../context.ts";
import type { Keyring } from "../keys/keyring.ts";
import type { Replica } from "../replicas/replica.ts";
import { DomainError, toErrorMessage, type Reason } from "../errors.ts";
import { toFingerprint } from "./fingerprint.ts";
import { NO_RECORD, type IdempotencyRecord } from "./idempotency-record.ts";
import type { RunningCalls } from "./running-calls.ts";
import { openOutcome, sealOutcome } from "./sealed-outcome.ts";

/*
 *   no row ──insert──▶ running ──the work returns, or its outcome is unknown──▶ done: replayed for 24 hours
 *                       │  ▲
 *                       │  └──retry takes over, resumed──┐
 *                       ├──the owner died────────────────┤
 *                       ├──work stands (KEEPS_SUBJECT)───┘
 *                       └──any other failure──▶ no row: the key is free
 */

type IdempotencyContext = Pick<BaseContext, "db" | "config" | "log"> & {
  keyring: Keyring;
  replica: Pick<Replica, "id">;
  runningCalls: RunningCalls;
};

export interface IdempotentCall {
  /** A product's id, or `operator:<name>`: keys of different callers have nothing to do with each other. */
  scope: string;
  /** undefined: the caller does not mind a second effect. */
  key: string | undefined;
  procedure: string;
  /** The input without its `idempotencyKey`. */
  input: unknown;
  /**
   * What a retry gets when the first attempt died midway: `resume` runs the work again with `resumed: true`;
   * `outcome_unknown` is for calls into an engine, which may have had their effect.
   */
  onLost: "resume" | "outcome_unknown";
}

/**
 * Failures after which what was begun goes on or can go on, or others have wanted something else since: a retry
 * resumes it instead of beginning anew. Of what had not begun nothing is kept.
 */
const KEEPS_SUBJECT: ReadonlySet<Reason> = new Set([
  "ENGINE_BUSY",
  "ENGINE_DESTROYING",
  "ENGINE_NOT_FOUND",
  "ENGINE_STOPPED",
  "DEADLINE_EXCEEDED",
  "RUNTIME_UNREACHABLE",
  "RUNTIME_CHANGED",
  "DATABASE_UNAVAILABLE",
  "DRAINING",
  "INTERNAL",
]);

const RETRY_AFTER_MS = 1_000;

/**
 * Runs the work once per key: the same key with the same input gets the stored reply.
 *
 * @throws IDEMPOTENCY_MISMATCH for the same key with another input or procedure, IDEMPOTENCY_IN_PROGRESS while the
 *   first attempt runs, OUTCOME_UNKNOWN (again and again) when nobody can say what it did.
 */
export async function runIdempotent<R>(
  ctx: IdempotencyContext,
  call: IdempotentCall,
  work: (idempotency: IdempotencyRecord) => Promise<R>,
): Promise<R> {
  if (call.key === undefined) return work(NO_RECORD);
  const { scope, key, procedure } = call;
  assertStorable(key);
  const fingerprint = toFingerprint(call.input);
  const entered = ctx.runningCalls.enter({ scope, key }, { procedure, fingerprint });
  if ("other" in entered) {
    assertSameCall(entered.other, { procedure, fingerprint });
    throw inProgress();
  }
  using _running = entered.leave;
  const owner = { scope, key, replicaId: ctx.replica.id };
  const found = await openRecord(ctx, { ...owner, procedure, fingerprint });
  if (found.state === "done") return openOutcome(ctx.keyring, owner, found.replySealed) as R;
  if (found.resumed && call.onLost === "outcome_unknown") return await storeLostOutcome(ctx, owner);
  return await runRecorded(ctx, { ...owner, ...found }, work);
}

type OpenedRecord =
  { state: "done"; replySealed: string } | { state: "running"; resumed: boolean; subject: string | null };

const MAX_RACES = 5;

async function openRecord(
  ctx: IdempotencyContext,
  wanted: IdempotencyOwner & { procedure: string; fingerprint: string },
): Promise<OpenedRecord> {
  for (let races = 0; races < MAX_RACES; races += 1) {
    if (await insertIdempotencyRecord(ctx.db, wanted))
      return { state: "running", resumed: false, subject: null };
    const row = await findIdempotencyRecord(ctx.db, { ...wanted, leaseMs: ctx.config.leaseMs });
    if (row === undefined) continue;
    if (row.expired) {
      await deleteExpiredIdempotencyRecord(ctx.db, wanted);
      continue;
    }
    assertSameCall(row, wanted);
    const opened = await openExisting(ctx, wanted, row);
    if (opened !== undefined) return opened;
  }
  throw inProgress();
}

/** undefined when the row changed in between: look again. */
async function openExisting(
  ctx: IdempotencyContext,
  owner: IdempotencyOwner,
  row: IdempotencyRow,
): Promise<OpenedRecord | undefined> {
  if (row.replySealed !== null) return { state: "done", replySealed: row.replySealed };
  // A claim of our own that nothing here works on was left behind; see running-claims.ts.
  if (row.ownerAlive && row.replicaId !== owner.replicaId) throw inProgress();
  if (!(await takeOverIdempotencyRecord(ctx.db, { ...owner, fromReplicaId: row.replicaId })))
    return undefined;
  return { state: "running", resumed: true, subject: row.subject };
}

async function storeLostOutcome(ctx: IdempotencyContext, owner: IdempotencyOwner): Promise<never> {
  const error = new DomainError(
    "OUTCOME_UNKNOWN",
    "the first attempt was cut off, and may have had its effect",
  );
  await completeIdempotencyRecord(ctx.db, {
    ...owner,
    replySealed: sealOutcome(ctx.keyring, owner, { error }),
  });
  throw error;
}

async function runRecorded<R>(
  ctx: IdempotencyContext,
  recorded: IdempotencyOwner & Pick<IdempotencyRecord, "resumed" | "subject">,
  work: (idempotency: IdempotencyRecord) => Promise<R>,
): Promise<R> {
  const { resumed, subject, ...owner } = recorded;
  let reply: R;
  try {
    reply = await work({
      resumed,
      subject,
      setSubject: async (tx, noted) =>
        assertOwned(await setIdempotencySubject(tx, { ...owner, subject: noted })),
      complete: async (tx, done) =>
        assertOwned(
          await completeIdempotencyRecord(tx, {
            ...owner,
            replySealed: sealOutcome(ctx.keyring, owner, { reply: done }),
          }),
        ),
    });
  } catch (error) {
    await endFailed(ctx, owner, error);
    throw error;
  }
  // Changes nothing when the work completed the claim itself.
  const replySealed = sealOutcome(ctx.keyring, owner, { reply });
  await settle(ctx, owner, async () => completeIdempotencyRecord(ctx.db, { ...owner, replySealed }));
  return reply;
}

async function endFailed(ctx: IdempotencyContext, owner: IdempotencyOwner, error: unknown): Promise<void> {
  if (error instanceof DomainError && error.reason === "OUTCOME_UNKNOWN") {
    const replySealed = sealOutcome(ctx.keyring, owner, { error });
    return settle(ctx, owner, async () => completeIdempotencyRecord(ctx.db, { ...owner, replySealed }));
  }
  const keepSubject = !(error instanceof DomainError) || KEEPS_SUBJECT.has(error.reason);
  return settle(ctx, owner, async () => releaseIdempotencyRecord(ctx.db, { ...owner, keepSubject }));
}

/** The work's own outcome counts: a claim that could not be settled is taken over by the retry. */
async function settle(
  ctx: IdempotencyContext,
  owner: IdempotencyOwner,
  write: () => Promise<unknown>,
): Promise<void> {
  try {
    await write();
  } catch (error) {
    const fields = { scope: owner.scope, error: toErrorMessage(error) };
    ctx.log.warn(fields, "an idempotency key could not be settled; a retry resumes it");
  }
}

function assertSameCall(
  first: { procedure: string; fingerprint: string },
  now: { procedure: string; fingerprint: string },
): void {
  if (first.procedure === now.procedure && first.fingerprint === now.fingerprint) return;
  throw new DomainError("IDEMPOTENCY_MISMATCH", "this idempotency key was used for another call");
}

function assertOwned(owned: boolean): void {
  if (!owned) throw inProgress();
}

function inProgress(): DomainError {
  return new DomainError(
    "IDEMPOTENCY_IN_PROGRESS",
    "the first call with this idempotency key is still running",
    {
      retryAfterMs: RETRY_AFTER_MS,
    },
  );
}

/** Postgres refuses NUL in text and folds lone surrogates, which would make two keys one. */
function assertStorable(key: string): void {
  if (key.length > 0 && key.isWellFormed() && !key.includes("\0")) return;
  throw new DomainError("INVALID_INPUT", "an idempotency key is well-formed text without NUL", {
    issues: [{ path: "idempotencyKey", message: "not well-formed text" }],
  });
}
