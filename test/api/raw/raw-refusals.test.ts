import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { DomainError, REASONS } from "../../../server/errors.ts";
import { answer } from "../../rpc/hostile-engine.ts";
import { ADMIN_KEY } from "../open-api.ts";
import { openRaw, quiet, type Raw, type RawCall, type RawReply, threeTokens, toBody } from "./open-raw.ts";

let raw: Raw;
beforeAll(async () => {
  raw = await openRaw();
  raw.api.behave("/execute", threeTokens);
});
afterAll(async () => raw[Symbol.asyncDispose]());

/** The shape of every refusal. */
function expectRefusal(reply: RawReply, status: number, reason: string): void {
  expect([reply.status, reply.body?.error?.reason], reply.text).toEqual([status, reason]);
  const { error, ...others } = reply.body;
  expect(others).toEqual({});
  expect(error.message).toEqual(expect.any(String));
  expect(error.requestId).toBe(reply.headers.get("x-request-id"));
  expect(reply.headers.get("content-type")).toMatch(/^application\/json/);
  const { retryAfterMs } = error;
  expect(reply.headers.get("retry-after")).toBe(
    retryAfterMs === undefined ? null : String(Math.ceil(retryAfterMs / 1_000)),
  );
  expect(reply.headers.get("www-authenticate") !== null).toBe(status === 401);
}

const EXECUTE = "/v1/engines/ada/execute";
const toEvents = (turnId: string = randomUUID()) => `/v1/turns/${turnId}/events`;
const toCancel = (turnId: string = randomUUID()) => `/v1/turns/${turnId}/cancel`;
const body = toBody("refused");
const LATIN1 = "application/json; charset=latin1";
const toDeep = (levels: number) =>
  `{"message":"m","task_id":"t","own":${"[".repeat(levels)}${"]".repeat(levels)}}`;

describe("a request that is wrong", () => {
  test.each<[what: string, method: string, path: string, call: RawCall, status: number]>([
    ["no body", "POST", EXECUTE, {}, 400],
    ["an empty body", "POST", EXECUTE, { body: "" }, 400],
    ["a body that is no JSON", "POST", EXECUTE, { body: '{"message":' }, 400],
    ["a body that is no object", "POST", EXECUTE, { body: "[1]" }, 400],
    ["another content type", "POST", EXECUTE, { body: "x", headers: { "content-type": "text/plain" } }, 415],
    ["a compressed body", "POST", EXECUTE, { body, headers: { "content-encoding": "gzip" } }, 415],
    ["a body in another charset", "POST", EXECUTE, { body, headers: { "content-type": LATIN1 } }, 415],
    ["a key that is no UUID", "POST", EXECUTE, { body, headers: { "idempotency-key": "once" } }, 400],
    ["an empty key", "POST", EXECUTE, { body, headers: { "idempotency-key": "" } }, 400],
    ["a cursor without a key", "POST", EXECUTE, { body, headers: { "last-event-id": "3" } }, 400],
    ["an unknown query parameter", "POST", `${EXECUTE}?expectgeneration=1`, { body }, 400],
    ["a query parameter twice", "POST", `${EXECUTE}?expectGeneration=1&expectGeneration=2`, { body }, 400],
    ["a generation that is no number", "POST", `${EXECUTE}?expectGeneration=one`, { body }, 400],
    ["a product, with a platform key", "POST", `${EXECUTE}?product=raw`, { body }, 400],
    ["a field __proto__", "POST", EXECUTE, { body: `{"message":"m","task_id":"t","__proto__":{}}` }, 400],
    ["a body that nests deep", "POST", EXECUTE, { body: toDeep(65) }, 400],
    ["a body that nests very deep", "POST", EXECUTE, { body: toDeep(40_000) }, 400],
    ["a task id with a control character", "POST", EXECUTE, { body: toBody("a\u0000") }, 400],
    ["a user id that is no text", "POST", "/v1/engines/%00/execute", { body }, 400],
    ["a cursor that is no number", "GET", toEvents(), { headers: { "last-event-id": "x" } }, 400],
    ["a turn id that is no UUID", "GET", toEvents("one"), {}, 400],
    ["a body for a cancel", "POST", toCancel(), { body: { turnId: "x" } }, 400],
    ["a path that cannot be decoded", "GET", "/v1/turns/%zz/events", {}, 400],
    ["a path that does not exist", "GET", "/v1/turns", {}, 404],
    ["a path with a slash at its end", "GET", `${toEvents()}/`, {}, 404],
  ])("is INVALID_INPUT: %s", async (_what, method, path, call, status) => {
    expectRefusal(await raw.send(method, path, call), status, "INVALID_INPUT");
  });

  test("names the fields as the caller writes them", async () => {
    const issueOf = async (sent: object) => {
      const reply = await raw.execute({ body: sent });
      expectRefusal(reply, 400, "INVALID_INPUT");
      const [issue] = reply.body.error.issues;
      expect(reply.body.error.message).toContain(`${issue.path}: ${issue.message}`);
      return issue.path;
    };
    expect(await issueOf({ message: "hi" })).toBe("task_id");
    expect(await issueOf({ task_id: "t" })).toBe("message");
    expect(await issueOf({ message: "hi", task_id: "t", edit_message_id: 1 })).toBe("edit_message_id");
    expect(await issueOf({ message: "hi", task_id: "t", taskId: "t" })).toBe("taskId");
    const cursor = await raw.events(randomUUID(), { headers: { "last-event-id": "-1" } });
    expect(cursor.body.error.issues[0].path).toBe("Last-Event-ID");
    const key = await raw.execute({ body, headers: { "idempotency-key": "x" } });
    expect(key.body.error.issues[0].path).toBe("Idempotency-Key");
  });

  test("says what to send", async () => {
    const messageOf = async (call: RawCall, path = EXECUTE) => {
      const reply = await raw.send("POST", path, { body, ...call });
      return reply.body.error.message as string;
    };
    expect(await messageOf({ headers: { "last-event-id": "3" } })).toBe(
      "the header Idempotency-Key is missing: with Last-Event-ID, send the turn's id as Idempotency-Key, too",
    );
    expect(await messageOf({}, `${EXECUTE}?expectGeneration=`)).toMatch(
      /parameter expectGeneration .*not ""$/,
    );
    expect(await messageOf({}, `${EXECUTE}?expectGeneration=1&expectGeneration=2`)).toMatch(
      /expectGeneration comes more than once/,
    );
    expect(await messageOf({ headers: { "content-encoding": "gzip" } })).toMatch(/Content-Encoding/);
    expect(await messageOf({ headers: { "content-type": LATIN1 } })).toMatch(/Content-Type.*utf-8/);
    expect(await messageOf({ body: '{"message":"m" "task_id":1}' })).toMatch(
      /at position 15 \(line 1 column 16\)$/,
    );
    expect(await messageOf({ body: '{"message":' })).toMatch(/it ends too early$/);
  });

  test("a cursor without a key gets no turn id, because there is no such turn", async () => {
    const reply = await raw.execute({ body, headers: { "last-event-id": "3" } });
    expect(reply.headers.get("x-turn-id")).toBeNull();
  });

  test.each(["application/json; charset=utf-8", 'application/json;charset="UTF-8"'])(
    "is not one that says %s",
    async (type) => {
      const reply = await raw.execute({ body: toBody("charset"), headers: { "content-type": type } });
      expect(reply.status).toBe(200);
    },
  );

  test("does not repeat the name of an unknown query parameter, which may be a key", async () => {
    const reply = await raw.send("GET", `${toEvents()}?${raw.key}=1`);
    expectRefusal(reply, 400, "INVALID_INPUT");
    expect(reply.text).not.toContain(raw.key);
  });
});

test("a body of too many values is refused by their number", async () => {
  const reply = await raw.execute({ body: `{"message":"m","task_id":"t","own":[${"0,".repeat(50_000)}0]}` });
  expectRefusal(reply, 413, "REQUEST_TOO_LARGE");
});

test("a method that a path does not have is 405 with the methods that it has, and OPTIONS tells them", async () => {
  for (const [path, method, allow] of [
    [EXECUTE, "POST", "POST, OPTIONS"],
    [toEvents(), "GET", "GET, OPTIONS"],
    [toCancel(), "POST", "POST, OPTIONS"],
    ["/healthz", "GET", "GET, HEAD, OPTIONS"],
    ["/v1/openapi.json?x=1", "GET", "GET, HEAD, OPTIONS"],
  ] as const) {
    for (const wrong of ["GET", "POST", "PUT", "PATCH", "DELETE"].filter((other) => other !== method)) {
      const reply = await raw.send(wrong, path);
      expectRefusal(reply, 405, "INVALID_INPUT");
      expect(reply.headers.get("allow")).toBe(allow);
    }
    const head = await raw.send("HEAD", path);
    const answered = allow.includes("HEAD") ? [200, null] : [405, allow];
    expect([head.status, head.headers.get("allow"), head.text]).toEqual([...answered, ""]);
    const options = await raw.send("OPTIONS", path, { key: "" });
    expect([options.status, options.headers.get("allow"), options.text]).toEqual([204, allow, ""]);
    // No website may call with a user's key: a browser reads only what CORS headers allow.
    expect(options.headers.get("access-control-allow-origin")).toBeNull();
  }
});

describe("a caller who may not", () => {
  test("is refused by its key: none, unknown, revoked, without the scope", async () => {
    const revoked = await raw.api.issue(raw.productId);
    await raw.api.mutate("platformKeys.revoke", { key: ADMIN_KEY, input: { keyId: revoked.keyId } });
    const { apiKey: reading } = await raw.api.issue(raw.productId, { scopes: ["read"] });
    const { apiKey: starting } = await raw.api.issue(raw.productId, { scopes: ["turns"] });
    for (const [key, method, path, status, reason] of [
      ["", "POST", EXECUTE, 401, "INVALID_KEY"],
      ["ehp_unknown", "GET", toEvents(), 401, "INVALID_KEY"],
      [revoked.apiKey, "POST", toCancel(), 401, "KEY_REVOKED"],
      [reading, "POST", EXECUTE, 403, "SCOPE_MISSING"],
      [starting, "POST", EXECUTE, 403, "SCOPE_MISSING"],
      [starting, "GET", toEvents(), 403, "SCOPE_MISSING"],
      [reading, "POST", toCancel(), 403, "SCOPE_MISSING"],
    ] as const) {
      const call = path === EXECUTE ? { key, body } : { key };
      expectRefusal(await raw.send(method, path, call), status, reason);
    }
  });

  test("sees nothing of another product", async () => {
    const started = await raw.execute({ body: toBody("mine") });
    const turnId = started.headers.get("x-turn-id") ?? "";
    const { apiKey: key } = await raw.api.register("stranger");
    expectRefusal(await raw.events(turnId, { key }), 404, "TURN_NOT_FOUND");
    expectRefusal(await raw.send("POST", toCancel(turnId), { key }), 404, "TURN_NOT_FOUND");
    expectRefusal(await raw.execute({ key, body }), 404, "ENGINE_NOT_FOUND");
  });
});

test("every refusal has the turn's id, once it is known", async () => {
  const turnId = randomUUID();
  const headers = { "idempotency-key": turnId };
  const replies = [
    await raw.execute({ key: "", body, headers }),
    await raw.execute({ body: "x".repeat(8 * 1024 * 1024 + 1), headers }),
    await raw.execute({ body: "x", headers: { ...headers, "content-type": "text/plain" } }),
    await raw.execute({ body: "{", headers }),
    await raw.execute({ user: "nobody", body, headers }),
    await raw.events(turnId.toUpperCase()),
    await raw.send("POST", toCancel(turnId)),
  ];
  expect(replies.map(({ status }) => status)).toEqual([401, 413, 415, 400, 404, 404, 404]);
  for (const reply of replies) expect(reply.headers.get("x-turn-id")).toBe(turnId);
  expectRefusal(replies[1] as RawReply, 413, "REQUEST_TOO_LARGE");
  const made = await raw.execute({ user: "nobody", body });
  expect(made.headers.get("x-turn-id")).toMatch(/^[0-9a-f-]{36}$/);
});

describe("what the engine refuses", () => {
  const envelope = { error: "NO", message: "not like this", details: { why: 1 } };

  test.each([
    [400, 502, "ENGINE_ERROR", undefined],
    [404, 422, "NOT_SUPPORTED_BY_ENGINE", undefined],
    [409, 409, "TURN_IN_PROGRESS", 1_000],
    [500, 502, "ENGINE_ERROR", undefined],
    [503, 503, "ENGINE_UNHEALTHY", 1_000],
  ])("%i is %i %s, with the engine's error", async (engineStatus, status, reason, retryAfterMs) => {
    raw.api.behave("/execute", answer(engineStatus, envelope));
    try {
      const reply = await raw.execute({ body: toBody(randomUUID()) });
      expectRefusal(reply, status, reason);
      expect(reply.body.error.retryAfterMs).toBe(retryAfterMs);
      expect(reply.body.error.engineError).toEqual({
        status: engineStatus,
        code: "NO",
        message: "not like this",
        details: { why: 1 },
      });
    } finally {
      raw.api.behave("/execute", threeTokens);
    }
  });

  test("a task with a live turn is TURN_IN_PROGRESS", async () => {
    raw.api.behave("/execute", quiet);
    const response = await raw.open("POST", EXECUTE, { body: toBody("busy") });
    raw.api.behave("/execute", threeTokens);
    expectRefusal(await raw.execute({ body: toBody("busy") }), 409, "TURN_IN_PROGRESS");
    await raw.send("POST", toCancel(response.headers.get("x-turn-id") ?? ""));
    await response.text();
  });
});

describe("each reason that a procedure may throw", () => {
  /** As in the table of docs/protocol.md. */
  const STATUS: Readonly<Partial<Record<(typeof REASONS)[number], number>>> = {
    INVALID_INPUT: 400,
    IMAGE_NOT_PINNED: 400,
    REQUEST_TOO_LARGE: 413,
    INVALID_KEY: 401,
    KEY_EXPIRED: 401,
    KEY_REVOKED: 401,
    SCOPE_MISSING: 403,
    IMAGE_NOT_ALLOWED: 403,
    ENGINE_NOT_FOUND: 404,
    TURN_NOT_FOUND: 404,
    PRODUCT_NOT_FOUND: 404,
    KEY_NOT_FOUND: 404,
    IDEMPOTENCY_MISMATCH: 422,
    NOT_SUPPORTED_BY_ENGINE: 422,
    QUOTA_EXCEEDED: 429,
    RATE_LIMITED: 429,
    STREAM_LIMIT: 429,
    PORT_EXHAUSTION: 503,
    RUNTIME_UNREACHABLE: 503,
    RUNTIME_CHANGED: 503,
    ENGINE_UNHEALTHY: 503,
    DRAINING: 503,
    DATABASE_UNAVAILABLE: 503,
    ENGINE_ERROR: 502,
    IMAGE_UNAVAILABLE: 502,
    BOOT_FAILED: 502,
    BOOT_TIMEOUT: 504,
    ENGINE_TIMEOUT: 504,
    DEADLINE_EXCEEDED: 408,
    INTERNAL: 500,
  };

  test.each(REASONS)("%s has its own status before the first byte, and its Retry-After", async (reason) => {
    const failure = new DomainError(reason, `the message of ${reason}`, {
      retryAfterMs: 1_500,
      issues: [{ path: "p", message: "m" }],
    });
    // The first thing that starting, reading and cancelling a turn do.
    const find = vi.spyOn(raw.api.ctx.turns, "find").mockImplementation(() => {
      throw failure;
    });
    try {
      for (const reply of [
        await raw.execute({ body: toBody("thrown"), isMadeUp: true }),
        await raw.events(randomUUID(), { isMadeUp: true }),
        await raw.send("POST", toCancel(), { isMadeUp: true }),
      ]) {
        expectRefusal(reply, STATUS[reason] ?? 409, reason);
        const { message, retryAfterMs, issues } = reply.body.error;
        expect(message).toBe(reason === "INTERNAL" ? "internal error" : `the message of ${reason}`);
        expect([retryAfterMs, issues]).toEqual([1_500, [{ path: "p", message: "m" }]]);
      }
    } finally {
      find.mockRestore();
    }
  });
});

test("while the replica drains, nothing starts, and turns can be read and cancelled", async () => {
  await using draining = await openRaw();
  draining.api.behave("/execute", quiet);
  const response = await draining.open("POST", EXECUTE, { body: toBody("before") });
  draining.api.ctx.drain.begin();
  const refused = await draining.execute({ body: toBody("after") });
  expectRefusal(refused, 503, "DRAINING");
  expect(refused.body.error.retryAfterMs).toBe(1_000);
  const turnId = response.headers.get("x-turn-id") ?? "";
  const cancelled = await draining.send("POST", toCancel(turnId));
  expect(cancelled.body.status).toBe("cancelled");
  expect((await draining.events(turnId)).events.at(-1)?.event).toBe("enginehouse.end");
  await response.text();
});
