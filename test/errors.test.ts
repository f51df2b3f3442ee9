import { glob, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { fromErrorShape, type EnginehouseError } from "../client/enginehouse-error.ts";
import { mayTryAgain } from "../client/may-try-again.ts";
import { toTrpcErrorShape } from "../server/api/trpc/api-error.ts";
import { DomainError, REASONS, type Reason } from "../server/errors.ts";

/** Whether a refusal for this reason says when the same request may succeed. */
const WAITING_HELPS: Readonly<Record<Reason, "always" | "never" | "depends">> = {
  INVALID_INPUT: "never",
  IMAGE_NOT_PINNED: "never",
  REQUEST_TOO_LARGE: "never",
  INVALID_KEY: "never",
  KEY_EXPIRED: "never",
  KEY_REVOKED: "never",
  SCOPE_MISSING: "never",
  IMAGE_NOT_ALLOWED: "never",
  ENGINE_NOT_FOUND: "never",
  TURN_NOT_FOUND: "never",
  PRODUCT_NOT_FOUND: "never",
  KEY_NOT_FOUND: "never",
  ENGINE_ALREADY_EXISTS: "never",
  PRODUCT_SLUG_EXISTS: "never",
  OPERATOR_NAME_EXISTS: "never",
  PRODUCT_NOT_EMPTY: "never",
  // Not after another call has rotated the key.
  ENGINE_BUSY: "depends",
  ENGINE_STOPPED: "never",
  ENGINE_SLEEPING: "never",
  // Only for the provision of the next engine, and while the runtime refuses the removal.
  ENGINE_DESTROYING: "depends",
  GENERATION_CHANGED: "never",
  TURN_IN_PROGRESS: "always",
  IDEMPOTENCY_IN_PROGRESS: "always",
  OUTCOME_UNKNOWN: "never",
  VOLUME_MISSING: "never",
  ROW_TAMPERED: "never",
  RUNTIME_UNCHANGED: "never",
  IDEMPOTENCY_MISMATCH: "never",
  NOT_SUPPORTED_BY_ENGINE: "never",
  QUOTA_EXCEEDED: "never",
  RATE_LIMITED: "always",
  STREAM_LIMIT: "always",
  // Not for an engine that is already on record.
  PORT_EXHAUSTION: "depends",
  RUNTIME_UNREACHABLE: "always",
  RUNTIME_CHANGED: "always",
  // Not once the service no longer restarts the engine.
  ENGINE_UNHEALTHY: "depends",
  DRAINING: "always",
  DATABASE_UNAVAILABLE: "always",
  ENGINE_ERROR: "never",
  IMAGE_UNAVAILABLE: "never",
  BOOT_TIMEOUT: "never",
  BOOT_FAILED: "never",
  ENGINE_TIMEOUT: "never",
  DEADLINE_EXCEEDED: "always",
  INTERNAL: "never",
};

const SERVER = join(import.meta.dirname, "../server");

/** The text between the parentheses of each `new DomainError(…)`. */
function findErrors(source: string): string[] {
  const found: string[] = [];
  const start = "new DomainError(";
  for (let at = source.indexOf(start); at >= 0; at = source.indexOf(start, at + 1)) {
    const from = at + start.length;
    let depth = 1;
    let end = from;
    let quote: string | undefined;
    for (; depth > 0 && end < source.length; end += 1) {
      const sign = source.charAt(end);
      if (quote !== undefined) {
        if (sign === quote) quote = undefined;
      } else if (sign === '"' || sign === "'" || sign === "`") quote = sign;
      else if (sign === "(") depth += 1;
      else if (sign === ")") depth -= 1;
    }
    found.push(source.slice(from, end - 1));
  }
  return found;
}

test("each refusal in the code has a retryAfterMs if and only if the same request may succeed later", async () => {
  const wrong: string[] = [];
  let checked = 0;
  for await (const file of glob("**/*.ts", { cwd: SERVER })) {
    for (const args of findErrors(await readFile(join(SERVER, file), "utf8"))) {
      const reason = /^\s*"(\w+)"/.exec(args)?.[1] as Reason | undefined;
      if (reason === undefined) continue;
      checked += 1;
      const rule = WAITING_HELPS[reason];
      if (rule === "depends") continue;
      if (args.includes("retryAfterMs") !== (rule === "always")) wrong.push(`${file}: ${args}`);
    }
  }
  expect(wrong).toEqual([]);
  expect(checked).toBeGreaterThan(80);
});

function toClientError(reason: Reason, retryAfterMs?: number): EnginehouseError {
  const error = new DomainError(reason, "why", { retryAfterMs });
  return fromErrorShape(toTrpcErrorShape(error, { path: "turns.start", requestId: null }));
}

describe("for each listed reason", () => {
  test("an error is transient for the client if and only if it says when to try again", () => {
    for (const reason of REASONS) {
      expect(toClientError(reason, 1_000), reason).toMatchObject({ isTransient: true, retryAfterMs: 1_000 });
      // A gateway answers 429 in the place of a replica, often without saying for how long.
      expect(toClientError(reason).isTransient, reason).toBe(reason === "RATE_LIMITED");
    }
  });

  test("the client repeats by itself only refusals before which nothing began", () => {
    const attempt = { mayRepeat: true, mayHaveArrived: false };
    const repeated = REASONS.filter((reason) =>
      mayTryAgain({ kind: "refusal", reason, retryAfterMs: 1_000 }, attempt),
    );
    expect(repeated).toEqual(["RATE_LIMITED", "STREAM_LIMIT", "DRAINING", "DATABASE_UNAVAILABLE"]);
  });
});
