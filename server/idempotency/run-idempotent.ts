import type { Db } from "../../db/client.ts";
import {
  completeIdempotencyRecord,
  completeIdempotencyRecordWithin,
  deleteExpiredIdempotencyRecord,
  findIdempotencyRecord,
  insertIdempotencyRecord,
  releaseIdempotencyRecord,
  setIdempotencySubject,
  takeOverIdempotencyRecord,
  type IdempotencyOwner,
  type IdempotencyRow,
  type NewIdempotencyRecord,
} from "../../db/idempotency.ts";
import type { BaseContext } from "../context.ts";
import type { Keyring } from "../keys/keyring.ts";
import type { Replica } from "../replicas/replica.ts";
import { DomainError, toErrorMessage } from "../errors.ts";
import { isFingerprint, toFingerprint, type Fingerprint } from "./fingerprint.ts";
import { NO_RECORD, type IdempotencyRecord } from "./idempotency-record.ts";
import type { RunningCall, RunningCalls } from "./running-calls.ts";
import { openOutcome, sealOutcome, toOutcomeText, type Outcome } from "./sealed-outcome.ts";

/*
 *   no record ──insert──▶ running ──the work returns, or its outcome is unknown──▶ done: replayed for 24 hours
 *                          │  ▲
 *                          │  └── a retry takes the record over, `resumed` ──┐
 *                          ├── the replica died ────────────────────────────┤
 *                          ├── the work failed, a subject is on record ─────┘
 *                          └── the work failed, no subject is on record ──▶ no record: the key is free
 */

type IdempotencyContext = Pick<BaseContext, "db" | "config" | "log"> & {
  keyring: Keyring;
  replica: Pick<Replica, "id">;
  runningCalls: RunningCalls;
};

export interface IdempotentCall {
  /** A product's id, or `operator:<id of the key>`. The same key in another scope is another record. */
  scope: string;
  /** undefined: run the work without a record. */
  key: string | undefined;
  procedure: string;
  /** The input without its `idempotencyKey`. */
  input: unknown;
  /**
   * What a retry gets if the replica of the first attempt died. `resume`: the work runs again with `resumed: true`.
   * `outcome_unknown`: an error, because a call into an engine may have had its effect. An engine chooses the size of
   * its answer, so only replies of such calls are bounded: a large one is not kept, and a retry gets the error too.
   */
  onLost: "resume" | "outcome_unknown";
}

/** Of JSON text, or of the message and details of an error. A reply is kept for 24 hours. */
export const REPLY_MAX_LENGTH = 64 * 1024;
/** For all replies of one scope. */
export const REPLIES_MAX_BYTES_PER_HOUR = 64 * 1024 * 1024;
/** Smaller replies are always kept, and not counted: their record itself takes about as much. */
const SMALL_LENGTH = 1024;

/**
 * Runs the work once per key: the same key with the same input gets the stored reply.
 *
 * @throws IDEMPOTENCY_MISMATCH for the same key with another input or procedure, IDEMPOTENCY_IN_PROGRESS while the
 *   first attempt runs, OUTCOME_UNKNOWN (to each retry) if the first attempt may have had its effect.
 */
export async function runIdempotent<R>(
  ctx: IdempotencyContext,
  call: IdempotentCall,
  work: (idempotency: IdempotencyRecord) => Promise<R>,
): Promise<R> {
  if (call.key === undefined) return work(NO_RECORD);
  const { scope, key } = call;
  assertStorable(key);
  const fingerprint = toFingerprint(ctx.keyring, ["idempotency", scope, key], call.input);
  const running: RunningCall = { procedure: call.procedure, fingerprint: fingerprint.stored };
  const entered = ctx.runningCalls.enter({ scope, key }, running);
  if ("other" in entered) {
    assertSameCall(ctx, entered.other, { ...running, fingerprint });
    throw inProgress();
  }
  using _running = entered.leave;
  const owner = { scope, key, replicaId: ctx.replica.id };
  const opened = await openRecord(ctx, { ...owner, ...running }, fingerprint);
  if (opened.state === "done") return openOutcome(ctx.keyring, owner, opened.replySealed) as R;
  if (opened.resumed && call.onLost === "outcome_unknown") return await storeLostOutcome(ctx, owner);
  const isBounded = call.onLost === "outcome_unknown";
  return await runAndStore(ctx, { ...owner, ...opened, isBounded }, work);
}

type OpenedRecord =
  { state: "done"; replySealed: string } | { state: "running"; resumed: boolean; subject: string | null };

const MAX_RACES = 5;

async function openRecord(
  ctx: IdempotencyContext,
  call: NewIdempotencyRecord,
  fingerprint: Fingerprint,
): Promise<OpenedRecord> {
  for (let races = 0; races < MAX_RACES; races += 1) {
    const isNew = await insertIdempotencyRecord(ctx.db, call);
    if (isNew) return { state: "running", resumed: false, subject: null };
    const row = await findIdempotencyRecord(ctx.db, { ...call, leaseMs: ctx.config.leaseMs });
    if (row === undefined) continue;
    if (row.expired) {
      await deleteExpiredIdempotencyRecord(ctx.db, call);
      continue;
    }
    assertSameCall(ctx, row, { ...call, fingerprint });
    const opened = await openExisting(ctx, call, row);
    if (opened !== undefined) return opened;
  }
  throw inProgress();
}

/** undefined: the row has changed since it was read; read it again. */
async function openExisting(
  ctx: IdempotencyContext,
  owner: IdempotencyOwner,
  row: IdempotencyRow,
): Promise<OpenedRecord | undefined> {
  if (row.replySealed !== null) return { state: "done", replySealed: row.replySealed };
  // This replica's own record has no running call (see RunningCalls), so its retry may take it over.
  if (row.ownerAlive && row.replicaId !== owner.replicaId) throw inProgress();
  const isTaken = await takeOverIdempotencyRecord(ctx.db, { ...owner, fromReplicaId: row.replicaId });
  return isTaken ? { state: "running", resumed: true, subject: row.subject } : undefined;
}

async function storeLostOutcome(ctx: IdempotencyContext, owner: IdempotencyOwner): Promise<never> {
  const error = new DomainError(
    "OUTCOME_UNKNOWN",
    "the first attempt was cut off and may have had its effect: check the engine, then call with a new idempotency key",
  );
  const replySealed = sealOutcome(ctx.keyring, owner, toOutcomeText({ error }));
  await completeIdempotencyRecord(ctx.db, { ...owner, replySealed });
  throw error;
}

async function runAndStore<R>(
  ctx: IdempotencyContext,
  opened: IdempotencyOwner & Pick<IdempotencyRecord, "resumed" | "subject"> & { isBounded: boolean },
  work: (idempotency: IdempotencyRecord) => Promise<R>,
): Promise<R> {
  const { resumed, subject, scope, key, replicaId, isBounded } = opened;
  const owner = { scope, key, replicaId };
  const complete = async (db: Db, outcome: Outcome) => store(ctx, owner, { db, outcome, isBounded });
  const note = async (db: Db, noted: string | null) =>
    setIdempotencySubject(db, { ...owner, subject: noted });
  let reply: R;
  try {
    reply = await work({
      resumed,
      subject,
      setSubject: async (tx, noted) => assertOwned(await note(tx, noted)),
      forgetSubject: async () => tryWrite(ctx, scope, async () => note(ctx.db, null)),
      complete: async (tx, done) => assertOwned(await complete(tx, { reply: done })),
    });
  } catch (error) {
    const isUnknown = error instanceof DomainError && error.reason === "OUTCOME_UNKNOWN";
    await tryWrite(ctx, scope, async () =>
      isUnknown ? complete(ctx.db, { error }) : releaseIdempotencyRecord(ctx.db, owner),
    );
    throw error;
  }
  // Changes nothing if the work has completed the record itself.
  await tryWrite(ctx, scope, async () => complete(ctx.db, { reply }));
  return reply;
}

/** A reply that holds a secret exists nowhere else, so only the replies of calls into an engine are bounded. */
async function store(
  ctx: IdempotencyContext,
  owner: IdempotencyOwner,
  { db, outcome, isBounded }: { db: Db; outcome: Outcome; isBounded: boolean },
): Promise<boolean> {
  const text = toOutcomeText(outcome);
  const seal = (stored: string) => sealOutcome(ctx.keyring, owner, stored);
  if (!isBounded || text.length <= SMALL_LENGTH) {
    return completeIdempotencyRecord(db, { ...owner, replySealed: seal(text) });
  }
  const substituteSealed = seal(toOutcomeText({ error: toSubstitute(outcome) }));
  if (text.length > REPLY_MAX_LENGTH) {
    return completeIdempotencyRecord(db, { ...owner, replySealed: substituteSealed });
  }
  const reply = { replySealed: seal(text), substituteSealed, maxBytesPerHour: REPLIES_MAX_BYTES_PER_HOUR };
  return completeIdempotencyRecordWithin(db, owner, reply);
}

/** What a retry gets instead of an outcome that is not kept. */
function toSubstitute(outcome: Outcome): DomainError {
  const message =
    "error" in outcome
      ? "the first call may have had its effect, and its error was too large to be kept"
      : "the first call succeeded, and its reply was too large to be kept";
  const remedy = "read the engine's state by another call, or call with a new idempotency key to act again";
  return new DomainError("OUTCOME_UNKNOWN", `${message}: ${remedy}`);
}

/** A failed write does not change the work's own outcome: the record stays `running`, and a retry takes it over. */
async function tryWrite(
  ctx: IdempotencyContext,
  scope: string,
  write: () => Promise<unknown>,
): Promise<void> {
  try {
    await write();
  } catch (error) {
    const fields = { scope, error: toErrorMessage(error) };
    ctx.log.warn(fields, "an idempotency record could not be written; a retry with its key resumes the call");
  }
}

function assertSameCall(
  { keyring }: Pick<IdempotencyContext, "keyring">,
  first: RunningCall,
  now: Pick<RunningCall, "procedure"> & { fingerprint: Fingerprint },
): void {
  const isSame = first.procedure === now.procedure;
  if (isSame && isFingerprint(keyring, first.fingerprint, now.fingerprint)) return;
  throw new DomainError(
    "IDEMPOTENCY_MISMATCH",
    "this idempotency key was used for another procedure or input: use a new key",
  );
}

function assertOwned(owned: boolean): void {
  if (!owned) throw inProgress();
}

function inProgress(): DomainError {
  return new DomainError(
    "IDEMPOTENCY_IN_PROGRESS",
    "the first call with this idempotency key is still running: call again later",
    { retryAfterMs: 1_000 },
  );
}

/** Postgres refuses NUL in text, and replaces each lone surrogate by the same character, so that two keys become one. */
function assertStorable(key: string): void {
  if (key.length > 0 && key.isWellFormed() && !key.includes("\0")) return;
  throw new DomainError("INVALID_INPUT", "an idempotency key must be well-formed text without NUL", {
    issues: [{ path: "idempotencyKey", message: "must be well-formed text without NUL" }],
  });
}
