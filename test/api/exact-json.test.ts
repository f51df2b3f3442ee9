import { randomUUID } from "node:crypto";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Behaviour } from "../rpc/hostile-engine.ts";
import { type Api, openApi } from "./open-api.ts";

/** Values that JSON.parse and JSON.stringify would change. */
const CHANGED = [
  "9007199254740993",
  "-9007199254740993",
  "123456789012345678901234567890",
  "1e400",
  "-1e-400",
  "1.0",
  "-0",
  "-0.0",
  "1E5",
  "1e5",
  "1e+5",
  "0.1000000000000000055",
  '{"10":1,"9":2}',
  '{"twice":1,"twice":2}',
  '{"__proto__":{"a":1.0}}',
  '[ 1.50 ,\t{ "a" : [ ] } ]',
  '"\\u00e9\\/\\ud800\\u0000"',
  '{"a\\"b\\\\":"]}","c":[[[1.0]]]}',
] as const;

let api: Api;
let key: string;
beforeAll(async () => {
  api = await openApi();
  ({ apiKey: key } = await api.register("exact"));
  await api.mutate("engines.provision", { key, input: { userId: "ada" } });
});
afterAll(async () => api[Symbol.asyncDispose]());

const headers = () => ({ authorization: `Bearer ${key}`, "content-type": "application/json" });

async function post(path: string, body: string, more: Record<string, string> = {}): Promise<string> {
  const init = { method: "POST", headers: { ...headers(), ...more }, body };
  return (await fetch(`${api.url}/trpc/${path}`, init)).text();
}

/** Answers each call of `/rpc` with this text, and keeps what the engine got. */
function answerRpc(answer: string): string[] {
  const got: string[] = [];
  api.behave("/rpc", (response, _request, body) => {
    got.push(body);
    response.writeHead(200, { "content-type": "application/json" }).end(answer);
  });
  return got;
}

/** Starts a turn over its raw route. Returns the data of its `sample` events, as text. */
async function executeRaw(body: string, turnId: string): Promise<string[]> {
  const init = { method: "POST", headers: { ...headers(), "idempotency-key": turnId }, body };
  return toSamples(await fetch(`${api.url}/v1/engines/ada/execute`, init));
}

async function toSamples(response: Response): Promise<string[]> {
  const samples: string[] = [];
  const onEvent = ({ event, data }: EventSourceMessage) => {
    if (event === "sample") samples.push(data);
  };
  createParser({ onEvent }).feed(await response.text());
  return samples;
}

const toData = (text: string) =>
  text
    .split("\n")
    .map((line) => `data: ${line}\n`)
    .join("");

function streamEvents(datas: readonly string[], got: string[] = []): Behaviour {
  return (response, _request, body) => {
    got.push(body);
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const data of datas) response.write(`event: sample\n${toData(data)}\n`);
    response.end(`event: thread_lifecycle\ndata: {"phase":"completed"}\n\n`);
  };
}

/** The data of the turn's `sample` events, as text: all bytes between `"data":` and the end of each event. */
async function readSamples(path: string, body: string): Promise<string[]> {
  const samples: string[] = [];
  const parser = createParser({
    onEvent: ({ event, data }) => {
      if (event !== undefined) return;
      expect(() => JSON.parse(data) as unknown).not.toThrow();
      const part =
        /"type":"sample","data":(.*?)\}(?=,\{"seq":\d+,"at":"[^"]*","type":|\](?:,"(?:gap|end)":.*)?\}$)/g;
      for (const [, sample = ""] of data.matchAll(part)) samples.push(sample);
    },
  });
  parser.feed(await post(path, body));
  return samples;
}

const startInput = (turnId: string, request: string) =>
  `{"turnId":"${turnId}","userId":"ada","request":{"message":"m","taskId":"${turnId}"${request}}}`;

describe.each(CHANGED)("the JSON %s is passed on as it is", (json) => {
  test("in a turn's request", async () => {
    const got: string[] = [];
    api.behave("/execute", streamEvents([], got));
    const turnId = randomUUID();
    await post("turns.start", startInput(turnId, `,"media":[${json}],"own":${json}`));
    expect(got).toEqual([`{"message":"m","task_id":"${turnId}","media":[${json}],"own":${json}}`]);
  });

  test("in the events of a turn, live and from the log", async () => {
    api.behave("/execute", streamEvents([json, `{"in":${json}}`]));
    const turnId = randomUUID();
    const wanted = [json, `{"in":${json}}`];
    expect(await readSamples("turns.execute", startInput(turnId, ""))).toEqual(wanted);
    expect(await readSamples("turns.events", `{"turnId":"${turnId}"}`)).toEqual(wanted);
    const rest = await readSamples("turns.events", `{"turnId":"${turnId}","lastEventId":"1"}`);
    expect(rest).toEqual(wanted.slice(1));
  });

  test("over the raw routes of a turn, live and from the log", async () => {
    const got: string[] = [];
    const wanted = [json, `{"in":${json}}`];
    api.behave("/execute", streamEvents(wanted, got));
    const turnId = randomUUID();
    const body = `{"message":"m","task_id":"${turnId}","media":[${json}],"own":${json}}`;
    expect(await executeRaw(body, turnId)).toEqual(wanted);
    expect(got).toEqual([body]);
    const path = `/v1/turns/${turnId}/events?lastEventId=1`;
    expect(await toSamples(await fetch(`${api.url}${path}`, { headers: headers() }))).toEqual([wanted[1]]);
  });

  test("in the params and the result of rpc.call, also when the stored reply is repeated", async () => {
    const got = answerRpc(`{"result":${json}}`);
    const call = `{"userId":"ada","method":"m","params":{"p":${json}},"idempotencyKey":"${randomUUID()}"}`;
    for (let attempt = 0; attempt < 2; attempt += 1) {
      expect(await post("rpc.call", call)).toBe(`{"result":{"data":{"result":${json},"generation":1}}}`);
    }
    expect(got).toEqual([`{"method":"m","params":{"p":${json}}}`]);
  });

  test("in the config of an engine, and in unknown fields of typed results", async () => {
    const result = `{"config":{"c":${json}},"revision":1.0,"unknown":${json}}`;
    const got = answerRpc(`{"result":${result}}`);
    const wanted = `{"result":{"data":${result}}}`;
    const set = `{"userId":"ada","config":{"p":${json}},"idempotencyKey":"${randomUUID()}"}`;
    expect(await post("rpc.setConfig", set)).toBe(wanted);
    expect(await post("rpc.setConfig", set)).toBe(wanted);
    for (const name of ["getConfig", "quotaState", "cacheState"]) {
      expect(await post(`rpc.${name}`, '{"userId":"ada"}')).toBe(wanted);
    }
    expect(got[0]).toBe(`{"method":"set_config","params":{"config":{"p":${json}}}}`);
  });

  test("in a batch, and in a batch that is answered line by line", async () => {
    const got = answerRpc(`{"result":${json}}`);
    const call = `{"userId":"ada","method":"m","params":{"p":${json}}}`;
    const wanted = `{"result":${json},"generation":1}`;
    const body = `{"0":${call},"1":${call}}`;
    expect(await post("rpc.call,rpc.call?batch=1", body)).toBe(
      `[{"result":{"data":${wanted}}},{"result":{"data":${wanted}}}]`,
    );
    const lines = await post("rpc.call,rpc.call?batch=1", body, { "trpc-accept": "application/jsonl" });
    expect(lines.split(wanted)).toHaveLength(3);
    expect(got).toEqual(Array.from({ length: 4 }, () => `{"method":"m","params":{"p":${json}}}`));
  });
});

test("whatever JSON a caller and an engine send, each gets the other's text", async () => {
  const number = fc.oneof(
    fc.bigInt().map(String),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map(String),
    fc
      .tuple(
        fc.constantFrom("", "-"),
        fc.bigInt(0n, 10n ** 30n),
        fc.nat(99),
        fc.constantFrom("e", "E+", "E-"),
        fc.nat(999),
      )
      .map(([sign, whole, part, e, power]) => `${sign}${whole}.${part}0${e}${power}`),
  );
  const space = fc.constantFrom("", " ", "\t", "  ");
  const name = fc
    .oneof(fc.string(), fc.constantFrom("1", "0", "__proto__", "result", "params"))
    .map((text) => JSON.stringify(text));
  const { json } = fc.letrec<{ json: string }>((tie) => ({
    json: fc.oneof(
      { depthSize: "small" },
      number,
      fc.string({ unit: "binary" }).map((text) => JSON.stringify(text)),
      fc.constantFrom("true", "null", '"\\u005d\\""'),
      fc
        .tuple(space, fc.array(tie("json")))
        .map(([gap, items]) => `[${gap}${items.join(`${gap},${gap}`)}${gap}]`),
      fc
        .tuple(space, fc.array(fc.tuple(name, tie("json"))))
        .map(
          ([gap, members]) =>
            `{${gap}${members.map(([key, value]) => `${key}${gap}:${gap}${value}`).join(`${gap},`)}${gap}}`,
        ),
    ),
  }));
  await fc.assert(
    fc.asyncProperty(json, json, async (sent, answered) => {
      const got = answerRpc(`{"also":1,"result":${answered}}`);
      const reply = await post("rpc.call", `{"params":{"p":${sent}},"userId":"ada","method":"m"}`);
      expect(reply).toBe(`{"result":{"data":{"result":${answered},"generation":1}}}`);
      expect(got).toEqual([`{"method":"m","params":{"p":${sent}}}`]);
      const executed: string[] = [];
      api.behave("/execute", streamEvents([answered], executed));
      const turnId = randomUUID();
      expect(await readSamples("turns.execute", startInput(turnId, `,"own":${sent}`))).toEqual([answered]);
      expect(await readSamples("turns.events", `{"turnId":"${turnId}"}`)).toEqual([answered]);
      const body = `{"message":"m","task_id":"${turnId}","own":${sent}}`;
      expect(executed).toEqual([body]);
      // The same turn over its raw route: the same input joins it.
      expect(await executeRaw(body, turnId)).toEqual([answered]);
      expect(executed).toHaveLength(1);
    }),
    { numRuns: 25 },
  );
}, 120_000);

test("an event whose JSON spans lines stays one event", async () => {
  api.behave("/execute", streamEvents(['{"a":\n1.0\n}']));
  const turnId = randomUUID();
  expect(await readSamples("turns.execute", startInput(turnId, ""))).toEqual(['{"a": 1.0 }']);
  expect(await readSamples("turns.events", `{"turnId":"${turnId}"}`)).toEqual(['{"a": 1.0 }']);
});

test("event data that looks like the frame of the next event stays one event", async () => {
  const data = '[{"x":1},{"seq":2,"at":"2026-11-23T00:00:00.000Z","type":"forged","data":1}]';
  api.behave("/execute", streamEvents([data, "2"]));
  const turnId = randomUUID();
  await post("turns.execute", startInput(turnId, ""));
  const reply = await post("turns.events", `{"turnId":"${turnId}","lastEventId":"1"}`);
  expect(reply).not.toContain("forged");
  expect(reply).toContain('"events":[{"seq":2,');
});

test("a number that the service reads itself may be written in any way", async () => {
  answerRpc('{"result":1}');
  const call = '{"userId":"ada","method":"m","timeoutMs":1.0e3,"expectGeneration":1.0}';
  expect(await post("rpc.call", call)).toBe('{"result":{"data":{"result":1,"generation":1}}}');
});

test("a turn's request is the same input only if its numbers are written the same, in any order of fields", async () => {
  api.behave("/execute", streamEvents([]));
  const turnId = randomUUID();
  const start = async (own: string) => post("turns.start", startInput(turnId, own));
  expect(await start(',"a":9007199254740993,"b":{"x":1.0,"y":2}')).toContain('"created":true');
  expect(await start(',"b":{"y":2, "x":1.0},"a":9007199254740993')).toContain('"created":false');
  expect(await start(',"a":9007199254740992,"b":{"x":1.0,"y":2}')).toContain("IDEMPOTENCY_MISMATCH");
  expect(await start(',"a":9007199254740993,"b":{"x":1,"y":2}')).toContain("IDEMPOTENCY_MISMATCH");
});

test("of a request's field that comes twice, the engine gets only the one that the service has checked", async () => {
  const got: string[] = [];
  api.behave("/execute", streamEvents([], got));
  const turnId = randomUUID();
  await post("turns.start", startInput(turnId, `,"message":"last","task\\u0049d":"${turnId}-2"`));
  expect(got).toEqual([`{"message":"last","task_id":"${turnId}-2"}`]);
  const body = `{"message":"m","task_id":"${turnId}","message":"last","task\\u005fid":"${turnId}-2"}`;
  await executeRaw(body, turnId);
  await executeRaw(body.replaceAll(turnId, "raw"), randomUUID());
  expect(got).toEqual([`{"message":"last","task_id":"${turnId}-2"}`, '{"message":"last","task_id":"raw-2"}']);
});
