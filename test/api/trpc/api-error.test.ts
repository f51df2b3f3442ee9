import { TRPCError } from "@trpc/server";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { REASON_CODES, toApiError, toTrpcErrorShape } from "../../../server/api/trpc/api-error.ts";
import { createKey } from "../../../server/keys/key-format.ts";
import { toErrorFields } from "../../../server/api/http/error-fields.ts";
import { DomainError, type Reason, REASONS } from "../../../server/errors.ts";

/** The table of errors in the interface document, row by row. */
const DOCUMENTED: Readonly<Record<string, readonly Reason[]>> = {
  BAD_REQUEST: ["INVALID_INPUT", "IMAGE_NOT_PINNED"],
  PAYLOAD_TOO_LARGE: ["REQUEST_TOO_LARGE"],
  UNAUTHORIZED: ["INVALID_KEY", "KEY_EXPIRED", "KEY_REVOKED"],
  FORBIDDEN: ["SCOPE_MISSING", "IMAGE_NOT_ALLOWED"],
  NOT_FOUND: ["ENGINE_NOT_FOUND", "TURN_NOT_FOUND", "PRODUCT_NOT_FOUND", "KEY_NOT_FOUND"],
  CONFLICT: [
    "ENGINE_ALREADY_EXISTS",
    "PRODUCT_SLUG_EXISTS",
    "OPERATOR_NAME_EXISTS",
    "PRODUCT_NOT_EMPTY",
    "ENGINE_BUSY",
    "ENGINE_STOPPED",
    "ENGINE_SLEEPING",
    "ENGINE_DESTROYING",
    "GENERATION_CHANGED",
    "TURN_IN_PROGRESS",
    "IDEMPOTENCY_IN_PROGRESS",
    "OUTCOME_UNKNOWN",
    "VOLUME_MISSING",
    "ROW_TAMPERED",
    "RUNTIME_UNCHANGED",
  ],
  UNPROCESSABLE_CONTENT: ["IDEMPOTENCY_MISMATCH", "NOT_SUPPORTED_BY_ENGINE"],
  TOO_MANY_REQUESTS: ["QUOTA_EXCEEDED", "RATE_LIMITED", "STREAM_LIMIT"],
  SERVICE_UNAVAILABLE: [
    "PORT_EXHAUSTION",
    "RUNTIME_UNREACHABLE",
    "RUNTIME_CHANGED",
    "ENGINE_UNHEALTHY",
    "DRAINING",
    "DATABASE_UNAVAILABLE",
  ],
  BAD_GATEWAY: ["ENGINE_ERROR", "IMAGE_UNAVAILABLE", "BOOT_FAILED"],
  GATEWAY_TIMEOUT: ["BOOT_TIMEOUT", "ENGINE_TIMEOUT"],
  TIMEOUT: ["DEADLINE_EXCEEDED"],
  INTERNAL_SERVER_ERROR: ["INTERNAL"],
};
const STATUS: Readonly<Record<string, number>> = {
  BAD_REQUEST: 400,
  UNAUTHORIZED: 401,
  FORBIDDEN: 403,
  NOT_FOUND: 404,
  TIMEOUT: 408,
  CONFLICT: 409,
  PAYLOAD_TOO_LARGE: 413,
  UNPROCESSABLE_CONTENT: 422,
  TOO_MANY_REQUESTS: 429,
  INTERNAL_SERVER_ERROR: 500,
  BAD_GATEWAY: 502,
  SERVICE_UNAVAILABLE: 503,
  GATEWAY_TIMEOUT: 504,
};
const call = { path: "engines.get", requestId: "r-1" };

test("every reason is documented once, and has the documented code and status", () => {
  const rows = Object.entries(DOCUMENTED).flatMap(([code, reasons]) =>
    reasons.map((reason) => [reason, code] as const),
  );
  expect(rows.map(([reason]) => reason).sort()).toEqual([...REASONS].sort());
  for (const [reason, code] of rows) {
    expect(REASON_CODES[reason]).toBe(code);
    const { data } = toTrpcErrorShape(new DomainError(reason, "said"), call);
    expect(data).toEqual({ code, httpStatus: STATUS[code], reason, ...call });
  }
});

test("retryAfterMs, issues and engineError reach the caller, also from inside a tRPC error", () => {
  const more = {
    retryAfterMs: 1_500,
    issues: [{ path: "a.b", message: "no" }],
    engineError: { status: 500, code: "E", message: "m", details: { d: 1 } },
  };
  const refusal = new DomainError("ENGINE_ERROR", "said", more);
  const wrapped = new TRPCError({ code: "INTERNAL_SERVER_ERROR", cause: refusal });
  for (const error of [refusal, wrapped]) {
    const shape = toTrpcErrorShape(error, call);
    expect(shape.message).toBe("said");
    expect(shape.data).toEqual({
      code: "BAD_GATEWAY",
      httpStatus: 502,
      reason: "ENGINE_ERROR",
      ...call,
      ...more,
    });
  }
});

function wrongReply(value: string): TRPCError {
  const cause = z.number().safeParse(value).error;
  return new TRPCError({ code: "INTERNAL_SERVER_ERROR", message: "Output validation failed", cause });
}

describe("an error without a listed reason becomes internal error, without any detail", () => {
  const secret = "s3cret-value";
  const statement = Object.assign(new Error(`Failed query: select $1 params: ${secret}`), {
    cause: Object.assign(new Error("division by zero"), { code: "22012" }),
  });
  test.each([
    ["an Error", new Error(secret)],
    ["a failed statement", statement],
    ["a string", secret],
    ["an INTERNAL refusal", new DomainError("INTERNAL", secret)],
    ["a reply that breaks its own schema", wrongReply(secret)],
    [
      "an internal error that tRPC threw itself",
      new TRPCError({ code: "INTERNAL_SERVER_ERROR", message: secret }),
    ],
  ])("%s", (_what, error) => {
    for (const thrown of [error, new TRPCError({ code: "INTERNAL_SERVER_ERROR", cause: error })]) {
      const shape = toTrpcErrorShape(thrown, call);
      expect(shape.message).toBe("internal error");
      expect(shape.data).toEqual({
        code: "INTERNAL_SERVER_ERROR",
        httpStatus: 500,
        reason: "INTERNAL",
        ...call,
      });
    }
  });
});

test("a lost database connection is DATABASE_UNAVAILABLE, however deep the error is wrapped", () => {
  const lost = Object.assign(new Error("write CONNECTION_CLOSED host:5432"), { code: "CONNECTION_CLOSED" });
  const failed = new Error("Failed query: select 1 params: secret", { cause: lost });
  const shape = toTrpcErrorShape(new TRPCError({ code: "INTERNAL_SERVER_ERROR", cause: failed }), call);
  expect(shape.data).toMatchObject({ reason: "DATABASE_UNAVAILABLE", httpStatus: 503 });
  expect(shape.data.retryAfterMs).toBeGreaterThan(0);
  expect(JSON.stringify(shape)).not.toMatch(/secret|5432/);
});

test("an invalid input is INVALID_INPUT and names the wrong fields, at most twenty", () => {
  const names = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`field${index}`, z.string()]));
  const cause = z.object({ list: z.object(names) }).safeParse({ list: {} }).error;
  const { data } = toTrpcErrorShape(new TRPCError({ code: "BAD_REQUEST", cause }), call);
  expect(data.reason).toBe("INVALID_INPUT");
  expect(data.issues).toHaveLength(20);
  expect(data.issues?.[0]).toMatchObject({ path: "list.field0" });

  const unknown = z.strictObject({}).safeParse({ ["x".repeat(100_000)]: 1 }).error;
  const shape = toTrpcErrorShape(new TRPCError({ code: "BAD_REQUEST", cause: unknown }), call);
  expect(JSON.stringify(shape).length).toBeLessThan(1_000);
});

test("the message of a JSON parser, which quotes the body, is not sent", () => {
  const cause = new SyntaxError('Unexpected token "hunter2"');
  expect(toApiError(new TRPCError({ code: "BAD_REQUEST", message: cause.message, cause }))).toEqual({
    code: "BAD_REQUEST",
    httpStatus: 400,
    reason: "INVALID_INPUT",
    message: "the request is not valid JSON",
  });
});

test.each([
  ['{"a":1 "secret"}', "the request is not valid JSON at position 7 (line 1 column 8)"],
  ['{"a":', "the request is not valid JSON: it ends too early"],
])("the place of a mistake in JSON is sent, if the parser tells it: %s", (text, message) => {
  const parse = () => JSON.parse(text) as unknown;
  expect(parse).toThrow(SyntaxError);
  try {
    parse();
  } catch (error) {
    const cause = error as SyntaxError;
    expect(toApiError(new TRPCError({ code: "BAD_REQUEST", cause })).message).toBe(message);
  }
});

test("a log line about a failed statement has the message of Postgres, without the parameters", () => {
  const cause = Object.assign(new Error("canceling statement due to statement timeout"), { code: "57014" });
  const failed = new Error("Failed query: select $1 params: hunter2", { cause });
  const wrapped = new TRPCError({ code: "INTERNAL_SERVER_ERROR", cause: failed });
  const fields = toErrorFields(wrapped);
  expect(fields.error).toBe("canceling statement due to statement timeout");
  expect(JSON.stringify(fields)).not.toContain("hunter2");
});

test("a key that was put into the path by mistake is not in the refusal, also if it is cut there", () => {
  const key = createKey("platform").plaintext;
  for (const path of [key, `${"x".repeat(190)}${key}`]) {
    const error = new TRPCError({ code: "NOT_FOUND", message: `No procedure found on path "${path}"` });
    const text = JSON.stringify(toTrpcErrorShape(error, { path, requestId: "r" }));
    expect(text).not.toContain(key.slice(0, 9));
  }
});
