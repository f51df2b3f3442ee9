import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { DomainError, type Reason } from "../../server/errors.ts";
import { EngineConnections } from "../../server/engine-contract/connections.ts";
import { postRpc, type RpcRequest } from "../../server/engine-contract/rpc.ts";
import { takePort } from "../support/ports.ts";
import {
  answer,
  type Behaviour,
  behaviours,
  type HostileEngine,
  openHostileEngine,
} from "../rpc/hostile-engine.ts";

const apiKey = "ehe_thisIsTheEnginesPlaintextKey0000000000";
const connections = new EngineConnections();
let engine: HostileEngine;
let interruption: AbortController;

beforeAll(async () => {
  engine = await openHostileEngine();
});
afterAll(async () => {
  await connections[Symbol.asyncDispose]();
  await engine[Symbol.asyncDispose]();
});
beforeEach(() => {
  interruption = new AbortController();
});

async function call(request: Partial<RpcRequest> = {}, endpoint = engine.url): Promise<unknown> {
  const result = await postRpc(
    connections,
    { endpoint, apiKey, interrupted: interruption.signal },
    { method: "skill.run", params: { a: 1 }, timeoutMs: 10_000, readOnly: false, ...request },
  );
  return result.value;
}

async function failure(request: Partial<RpcRequest> = {}, endpoint = engine.url): Promise<DomainError> {
  const outcome = await call(request, endpoint).catch((error: unknown) => error);
  if (!(outcome instanceof DomainError)) throw new Error(`not a DomainError: ${String(outcome)}`);
  return outcome;
}

test("a call carries the method, the params and the key, and returns the engine's result unchanged", async () => {
  let key: unknown;
  const result = { any: ["thing", null, 1.5], snake_case: true };
  engine.behave((response, request) => {
    key = request.headers["x-engine-key"];
    answer(200, { result, extra: "ignored" })(response, request, "");
  });
  expect(await call()).toEqual(result);
  expect(key).toBe(apiKey);
  expect(JSON.parse(engine.calls.at(-1) ?? "")).toEqual({ method: "skill.run", params: { a: 1 } });
});

test("null, false, 0 and the empty string are valid results", async () => {
  for (const result of [null, false, 0, ""]) {
    engine.behave(answer(200, { result }));
    expect(await call()).toBe(result);
  }
});

describe("an error that the engine reports reaches the caller with its code, message and details", () => {
  const envelope = { error: "NO_SUCH_SKILL", message: "there is none", details: { name: "x" } };
  const table: [number, Reason][] = [
    [200, "ENGINE_ERROR"],
    [400, "ENGINE_ERROR"],
    [401, "ENGINE_ERROR"],
    [404, "ENGINE_ERROR"],
    [409, "ENGINE_BUSY"],
    [422, "ENGINE_ERROR"],
    [500, "ENGINE_ERROR"],
    [503, "ENGINE_UNHEALTHY"],
  ];
  test.each(table)("status %i is %s", async (status, reason) => {
    engine.behave(answer(status, envelope));
    const error = await failure();
    expect(error.reason).toBe(reason);
    expect(error.engineError).toEqual({
      status,
      code: "NO_SUCH_SKILL",
      message: "there is none",
      details: { name: "x" },
    });
  });
});

describe("a status without the error envelope becomes a typed error", () => {
  const table: [number, Reason][] = [
    [302, "ENGINE_ERROR"],
    [401, "ENGINE_ERROR"],
    [404, "NOT_SUPPORTED_BY_ENGINE"],
    [405, "NOT_SUPPORTED_BY_ENGINE"],
    [409, "ENGINE_BUSY"],
    [500, "ENGINE_ERROR"],
    [502, "ENGINE_ERROR"],
    [503, "ENGINE_UNHEALTHY"],
  ];
  test.each(table)("status %i is %s", async (status, reason) => {
    engine.behave((response) => response.writeHead(status, { location: "/elsewhere" }).end("<h1>no</h1>"));
    expect((await failure()).reason).toBe(reason);
  });
});

describe("an answer that breaks the contract becomes a typed error", () => {
  const table: [keyof typeof behaviours, Reason, Reason][] = [
    ["html", "ENGINE_ERROR", "ENGINE_ERROR"],
    ["emptyBody", "ENGINE_ERROR", "ENGINE_ERROR"],
    ["tenMegabytes", "ENGINE_ERROR", "ENGINE_ERROR"],
    ["deep", "ENGINE_ERROR", "ENGINE_ERROR"],
    ["nothing", "ENGINE_TIMEOUT", "ENGINE_TIMEOUT"],
    ["stallsMidway", "ENGINE_TIMEOUT", "ENGINE_TIMEOUT"],
    ["halfAResponse", "ENGINE_ERROR", "ENGINE_ERROR"],
    ["crashes", "OUTCOME_UNKNOWN", "ENGINE_UNHEALTHY"],
    ["notHttp", "ENGINE_ERROR", "ENGINE_ERROR"],
  ];
  test.each(table)(
    "%s: %s for a call with effects, %s for a read-only call",
    async (name, changing, reading) => {
      engine.behave(behaviours[name] satisfies Behaviour);
      const timeoutMs = changing === "ENGINE_TIMEOUT" ? 300 : 10_000;
      expect((await failure({ timeoutMs })).reason).toBe(changing);
      expect((await failure({ timeoutMs, readOnly: true })).reason).toBe(reading);
    },
  );
});

test("the message of a timeout tells whether the effect is unknown", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  try {
    for (const readOnly of [false, true]) {
      const arrived = Promise.withResolvers<void>();
      engine.behave(() => arrived.resolve());
      const failed = failure({ timeoutMs: 10_000, readOnly });
      await arrived.promise;
      vi.advanceTimersByTime(10_000);
      const { reason, message } = await failed;
      expect(reason).toBe("ENGINE_TIMEOUT");
      expect(message.includes("unknown")).toBe(!readOnly);
    }
  } finally {
    vi.useRealTimers();
  }
});

test("a refused connection has no effect, so the caller may retry", async () => {
  const endpoint = `http://127.0.0.1:${await takePort()}`;
  const error = await failure({}, endpoint);
  expect(error.reason).toBe("ENGINE_UNHEALTHY");
  expect(error.retryAfterMs).toBeGreaterThan(0);
});

test("an interrupting operation gives a read-only call the reason, and a call with effects OUTCOME_UNKNOWN", async () => {
  engine.behave(() => interruption.abort("ENGINE_STOPPED"));
  expect((await failure()).reason).toBe("OUTCOME_UNKNOWN");
  interruption = new AbortController();
  expect((await failure({ readOnly: true })).reason).toBe("ENGINE_STOPPED");
});

test("no error carries the engine key, even if the engine echoes it", async () => {
  const envelope = { error: `E ${apiKey}`, message: `got ${apiKey}`, details: { headers: [apiKey] } };
  engine.behave(answer(400, envelope));
  const error = await failure();
  expect(JSON.stringify([error.message, error.engineError])).not.toContain(apiKey);
});

test("after each kind of failure the next call succeeds", async () => {
  for (const behaviour of [
    behaviours.html,
    behaviours.crashes,
    behaviours.halfAResponse,
    behaviours.tenMegabytes,
  ]) {
    engine.behave(behaviour);
    await failure();
    engine.behave(answer(200, { result: "fine" }));
    expect(await call()).toBe("fine");
  }
});

describe("the engine's key does not reach the caller through an error", () => {
  const units = apiKey.replaceAll(/./g, (sign) => `\\u00${sign.charCodeAt(0).toString(16).toUpperCase()}`);
  const forms = {
    plain: apiKey,
    escaped: units,
    "escaped twice": units.replaceAll("\\", String.raw`\\`),
    "in JSON in JSON": String.raw`{\"x-engine-key\":\"${apiKey}\"}`,
    "in a URL": `/rpc?key=${apiKey.replace("_", "%5F")}`,
    base64: Buffer.from(`Bearer ${apiKey}`).toString("base64"),
    hex: Buffer.from(apiKey).toString("hex"),
  };
  test.each(Object.entries(forms))("that has it %s", async (_name, form) => {
    const body = `{"error":"${form}","message":"bad ${form}!","details":{"${form}":["${form}"],"kept":1.5}}`;
    engine.behave((response) => {
      response.writeHead(500, { "content-type": "application/json" }).end(body);
    });
    const error = await failure();
    expect(error.engineError).toMatchObject({ status: 500, details: { kept: 1.5 } });
    const words = [error.message, JSON.stringify(error.engineError)].join(" ");
    expect(words).toContain("[hidden]");
    for (const secret of [apiKey, form, Buffer.from(apiKey.slice(3, 30)).toString("base64").slice(2, -4)]) {
      expect(words).not.toContain(secret);
    }
  });

  test("that has it in the content type", async () => {
    engine.behave((response) => response.writeHead(500, { "content-type": `text/${apiKey}` }).end("no"));
    expect((await failure()).message).not.toContain(apiKey);
  });
});

const many = (count: number, item: string) => `[${Array(count).fill(item).join(",")}]`;

describe("an answer of very many values is refused before it is parsed", () => {
  test.each([
    ["empty lists", `{"result":${many(340_000, "[]")}}`],
    ["keys", `{"result":{${Array.from({ length: 60_000 }, (_, n) => `"${n}":1`).join(",")}}}`],
    ["values of an error", `{"error":"X","message":"","details":${many(60_000, "1")}}`],
  ])("%s", async (_what, body) => {
    const parse = vi.spyOn(JSON, "parse");
    try {
      engine.behave((response) => response.writeHead(200, { "content-type": "application/json" }).end(body));
      const error = await failure();
      expect(error).toMatchObject({
        reason: "ENGINE_ERROR",
        message: expect.stringContaining("50000 JSON values"),
      });
      expect(parse).not.toHaveBeenCalledWith(body);
    } finally {
      parse.mockRestore();
    }
  });

  test("an answer below the bound arrives whole, also with commas and brackets in its strings", async () => {
    const result = [...Array(40_000).fill(1), ",[{".repeat(50_000)] as unknown[];
    engine.behave(answer(200, { result }));
    expect(await call()).toEqual(result);
  });
});
