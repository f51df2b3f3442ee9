import { describe, expect, test } from "vitest";
import { createClient, EnginehouseError, findReason } from "../../client/index.ts";
import { takePort } from "../support/ports.ts";
import {
  CONNECTED,
  type Exchange,
  openFakeService,
  RETURN,
  sendResult,
  startStream,
  toEnd,
  toEvent,
  toSse,
} from "./fake-service.ts";

const retry = { firstDelayMs: 1, maxDelayMs: 5, callForMs: 5_000, streamForMs: 5_000 };
const page = (status: number) =>
  `<!DOCTYPE html>\n<html><head><title>\n ${status} by the\n gateway</title><style>b{}</style></head><body>Sorry</body></html>`;

type Answer = (exchange: Exchange) => void;
const html =
  (status: number, headers: Record<string, string> = {}): Answer =>
  ({ response }) => {
    response.writeHead(status, { "content-type": "text/html; charset=utf-8", server: "nginx", ...headers });
    response.end(page(status));
  };
const json =
  (status: number, body: string): Answer =>
  ({ response }) => {
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  };

const turn = toSse({ lastSeq: 2, events: [toEvent(1, "text_delta", { text: "fine" })], end: toEnd(2) });

/** Gives these answers first. Then it behaves as a replica. */
async function openBehindGateway(...answers: Answer[]) {
  const left = [...answers];
  return openFakeService((exchange) => {
    const { path, response } = exchange;
    const answer = left.shift();
    if (answer) return answer(exchange);
    if (path !== "turns.execute" && path !== "turns.events") return sendResult(response, { done: true });
    startStream(response);
    response.end(CONNECTED + turn + RETURN);
  });
}

const toClient = (url: string) => createClient({ url, key: "ehp_secret", retry });
type Client = ReturnType<typeof toClient>;

const request = { message: "m", taskId: "t" };
const query = async ({ api }: Client) => api.engines.get.query({ userId: "ada" });
const call = async ({ api }: Client) => api.rpc.call.mutate({ userId: "ada", method: "m" });
const execute = async (client: Client) => client.execute({ userId: "ada", request }).text();
const end = async (client: Client) => client.execute({ userId: "ada", request }).end;
async function subscribe({ api }: Client): Promise<void> {
  for await (const _batch of api.turns.events.subscribe({ turnId: "t" }));
}
const WAYS = { query, call, execute, end, subscribe };

const thrownBy = async (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    () => undefined,
    (error: unknown) => error,
  );
const toMessage = (error: unknown) => (error instanceof Error ? error.message : "");

const FINAL: [name: string, answer: Answer, said: string[]][] = [
  ["a login page", html(200), ["200", "text/html", "server: nginx", '"200 by the gateway"']],
  ["an empty answer", ({ response }) => void response.writeHead(200).end(), ["200", "an empty body"]],
  ["204", ({ response }) => void response.writeHead(204).end(), ["204", "an empty body"]],
  ["JSON of another service", json(200, '{"hello":"world"}'), ["200", '"{"hello":"world"}"']],
  ["an error of another service", json(404, '{"error":"Not Found"}'), ["404", "Not Found"]],
  [
    "text",
    ({ response }) => void response.writeHead(400).end("nope\u0007"),
    ["400", "no content type", '"nope"'],
  ],
  ["a proxy's own error", html(500, { via: "1.1 varnish" }), ["500", "via: 1.1 varnish"]],
  ...[400, 401, 403, 404, 405, 410, 418, 431, 451, 501, 511].map((status): [string, Answer, string[]] => [
    String(status),
    html(status),
    [String(status), "nginx"],
  ]),
];

describe.each(FINAL)(
  "%s instead of a replica's answer is UNEXPECTED_ANSWER, says what answered, and is final:",
  (...row) => {
    const [, answer, said] = row;
    test.each(Object.entries(WAYS))("%s", async (_name, way) => {
      await using service = await openBehindGateway(answer);
      const error = await thrownBy(way(toClient(service.url)));
      expect(findReason(error)).toBe("UNEXPECTED_ANSWER");
      for (const part of [service.url, ...said]) expect(toMessage(error)).toContain(part);
      expect(service.seen).toHaveLength(1);
    });
  },
);

const PASSING = [408, 425, 429, 502, 503, 504, 520, 521, 522, 523, 524, 525, 526, 527, 529, 530, 598, 599];

describe.each(PASSING)("a gateway's %i", (status) => {
  test.each(Object.entries({ query, execute, end }))("is tried again: %s", async (_name, way) => {
    await using service = await openBehindGateway(html(status), html(status));
    await way(toClient(service.url));
    expect(service.seen.length).toBeGreaterThanOrEqual(3);
    const turnIds = service.seen.map(({ input }) => input["turnId"]);
    expect(new Set(turnIds).size).toBe(1);
  });

  test("is not tried again for a call into an engine without an idempotency key", async () => {
    await using service = await openBehindGateway(html(status));
    const error = await thrownBy(call(toClient(service.url)));
    expect(findReason(error)).toBe(status === 429 ? "RATE_LIMITED" : "CONNECTION_LOST");
    expect(toMessage(error)).toContain(
      `${service.url} answered ${status} (text/html, server: nginx, "${status} by`,
    );
    expect(service.seen).toHaveLength(1);
  });
});

test.each(Object.entries(WAYS))("a gateway's 413 is REQUEST_TOO_LARGE: %s", async (_name, way) => {
  await using service = await openBehindGateway(html(413));
  const error = await thrownBy(way(toClient(service.url)));
  expect(findReason(error)).toBe("REQUEST_TOO_LARGE");
  expect(toMessage(error)).toMatch(/413 .*nginx.* takes no request of \d+ characters/);
  expect(service.seen).toHaveLength(1);
});

test("a refusal that a replica sends before any procedure keeps its reason", async () => {
  const body = '{"error":{"reason":"REQUEST_TOO_LARGE","message":"too large","requestId":"r"}}';
  for (const way of Object.values(WAYS)) {
    await using service = await openBehindGateway(json(431, body));
    const error = await thrownBy(way(toClient(service.url)));
    expect([findReason(error), toMessage(error)]).toEqual(["REQUEST_TOO_LARGE", "too large"]);
    expect(service.seen).toHaveLength(1);
  }
});

test("the client waits as long as a gateway says, and fails at once if that is too long", async () => {
  const past = new Date(0).toUTCString();
  await using soon = await openBehindGateway(
    html(429, { "retry-after": "0" }),
    html(503, { "retry-after": past }),
  );
  await query(toClient(soon.url));
  expect(soon.seen).toHaveLength(3);
  const far = new Date(Date.now() + 3_600_000).toUTCString();
  for (const header of ["3600", far]) {
    await using late = await openBehindGateway(html(429, { "retry-after": header }));
    expect(findReason(await thrownBy(query(toClient(late.url))))).toBe("RATE_LIMITED");
    expect(late.seen).toHaveLength(1);
    const limited = html(429, { "retry-after": header });
    await using starting = await openBehindGateway(limited);
    const error = await thrownBy(execute(toClient(starting.url)));
    expect(error).toBeInstanceOf(EnginehouseError);
    expect(error).toMatchObject({ reason: "RATE_LIMITED", isTransient: true });
    expect((error as EnginehouseError).retryAfterMs).toBeGreaterThan(3_500_000);
    expect(starting.seen).toHaveLength(1);
  }
});

const brokenStream: Answer = ({ response }) => {
  startStream(response);
  response.end(CONNECTED + toSse({ lastSeq: 1, events: [toEvent(1, "text_delta", { text: "fine" })] }));
};

test("the reader of a turn that a replica has begun resumes after any answer of a gateway", async () => {
  const troubles = [html(429), html(524), html(403), html(200)];
  await using service = await openBehindGateway(brokenStream, ...troubles);
  expect(await execute(toClient(service.url))).toBe("fine");
  expect(service.seen).toHaveLength(6);
});

test("the reader of a turn gives up with what it gets instead of the stream", async () => {
  await using service = await openFakeService((exchange) => {
    (exchange.path === "turns.execute" ? brokenStream : html(403))(exchange);
  });
  const client = createClient({ url: service.url, key: "key", retry: { ...retry, streamForMs: 50 } });
  const error = await thrownBy(execute(client));
  expect(findReason(error)).toBe("UNEXPECTED_ANSWER");
  expect(toMessage(error)).toContain(`${service.url} answered 403 (text/html, server: nginx`);
});

describe("a redirect is not followed, and the message names the url to set:", () => {
  test.each([301, 302, 303, 307, 308])("%i", async (status) => {
    await using target = await openFakeService(({ response }) => sendResult(response, { done: true }));
    const toTarget: Answer = ({ response, url }) =>
      void response.writeHead(status, { location: `${target.url}/house${url}?code=secret` }).end();
    for (const way of Object.values(WAYS)) {
      await using service = await openBehindGateway(toTarget);
      const error = await thrownBy(way(toClient(service.url)));
      expect(findReason(error)).toBe("UNEXPECTED_ANSWER");
      expect(toMessage(error)).toContain(`${service.url} answered ${status}`);
      expect(toMessage(error)).toMatch(new RegExp(`: set the client's url to ${target.url}/house$`));
      expect(toMessage(error)).not.toContain("secret");
      expect(service.seen).toHaveLength(1);
    }
    expect(target.seen).toEqual([]);
  });

  test("to a page, within the origin, or to nowhere", async () => {
    for (const [location, said] of [
      ["/login?next=x", "/login: check the client's url"],
      ["/trpc/engines.get/", "/trpc/engines.get/: check the client's url"],
      ["http://[", "the client follows no redirect"],
      [undefined, "the client follows no redirect"],
    ] as const) {
      await using service = await openBehindGateway(({ response }) => {
        response.writeHead(302, location === undefined ? {} : { location }).end();
      });
      const error = await thrownBy(query(toClient(service.url)));
      expect(findReason(error)).toBe("UNEXPECTED_ANSWER");
      expect(toMessage(error)).toContain(said);
    }
  });

  test("in a browser, which hides the status and the target", async () => {
    const opaque = {
      ok: false,
      status: 0,
      type: "opaqueredirect",
      headers: new Headers(),
      body: null,
      text: () => Promise.resolve(""),
    };
    const hiding: typeof fetch = () => Promise.resolve(opaque as unknown as Response);
    const client = createClient({ url: "http://house.test", key: "key", retry, fetch: hiding });
    const error = await thrownBy(query(client));
    expect(findReason(error)).toBe("UNEXPECTED_ANSWER");
    expect(toMessage(error)).toBe(
      "http://house.test answered with a redirect: the client follows no redirect, so set the url that it points to",
    );
  });
});

test("a page that shows the request does not bring the key into the message", async () => {
  await using service = await openBehindGateway(({ response, authorization }) => {
    response.writeHead(403).end(`denied: authorization ${authorization}`);
  });
  const message = toMessage(await thrownBy(query(toClient(service.url))));
  expect(message).toContain("denied: authorization Bearer [hidden]");
  expect(message).not.toContain("secret");
});

test("after the last attempt the message names the address, the cause, the attempts and the time", async () => {
  const url = `http://127.0.0.1:${await takePort()}`;
  const client = createClient({ url, key: "key", retry: { ...retry, callForMs: 50 } });
  expect(toMessage(await thrownBy(query(client)))).toMatch(
    new RegExp(
      `^${url} cannot be reached \\(ECONNREFUSED\\); the client gave up after \\d+ attempts in \\d+\\.\\d s$`,
    ),
  );
  await using service = await openFakeService(({ response }) => void response.socket?.resetAndDestroy());
  expect(toMessage(await thrownBy(call(toClient(service.url))))).toMatch(
    new RegExp(`^the connection to ${service.url} broke \\(.*(ECONNRESET|UND_ERR_SOCKET).*\\)$`),
  );
});
