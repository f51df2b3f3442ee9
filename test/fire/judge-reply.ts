import { expect } from "vitest";
import { REASONS } from "../../server/errors.ts";

/** Internals that no reply may show: stacks, paths, SQL statements, and names of libraries. */
const INTERNALS =
  /\n\s+at |node_modules|\.[jt]s:\d|file:\/\/|Failed query|select \$|insert into|ZodError|TRPCError/;
/** The largest refusal, however large the request was. */
const REFUSAL_MAX_LENGTH = 12_000;

interface Refusal {
  reason?: string;
  requestId?: string;
  message?: string;
}

/**
 * Checks that a reply is JSON, and that a refusal has a listed reason other than INTERNAL, a request id and no internals.
 * Returns the reasons in it, none for a success.
 */
export function judgeReply(reply: { status: number; text: string }): string[] {
  const body: unknown = JSON.parse(reply.text);
  const refusals = (Array.isArray(body) ? body : [body]).map(findRefusal).filter((one) => one !== undefined);
  expect(refusals.length > 0, reply.text.slice(0, 500)).toBe(reply.status >= 400 || reply.status === 207);
  return refusals.map((refusal) => judgeRefusal(refusal, reply.text));
}

/** Checks the events of a tRPC subscription likewise. Its refusals are events. */
export function judgeStream(text: string): string[] {
  const errors = text.matchAll(/event: serialized-error\ndata: (.*)\n/g);
  return [...errors].map(([, data = ""]) => judgeRefusal(findRefusal({ error: JSON.parse(data) }), data));
}

/** Checks that a connection received complete HTTP replies and nothing else. `received` has one character per byte. */
export function judgeConnection(received: string): { status: number; reasons: string[] }[] {
  const replies: { status: number; reasons: string[] }[] = [];
  let rest = received;
  while (rest !== "") {
    const [head = "", status = "", headers = ""] =
      /^HTTP\/1\.1 (\d{3}) [^\r]*\r\n([^]*?)\r\n\r\n/.exec(rest) ?? [];
    if (head === "") throw new Error(`not an HTTP reply: ${rest.slice(0, 200)}`);
    rest = rest.slice(head.length);
    if (status === "100") continue;
    const isStream = /^transfer-encoding: chunked$/im.test(headers);
    const length = Number(/^content-length: (\d+)$/im.exec(headers)?.[1]);
    const { text, end } = isStream ? joinChunks(rest) : { text: rest.slice(0, length), end: length };
    rest = rest.slice(end);
    const reasons = isStream ? judgeStream(text) : judgeReply({ status: Number(status), text });
    replies.push({ status: Number(status), reasons });
  }
  return replies;
}

function joinChunks(body: string): { text: string; end: number } {
  let text = "";
  for (let at = 0; ;) {
    const [head = "", digits = ""] = /^([0-9a-f]+)\r\n/i.exec(body.slice(at, at + 20)) ?? [];
    if (head === "") throw new Error(`not a chunk: ${body.slice(at, at + 200)}`);
    const start = at + head.length;
    const size = Number.parseInt(digits, 16);
    text += body.slice(start, start + size);
    at = start + size + "\r\n".length;
    if (size === 0) return { text, end: at };
  }
}

function findRefusal(body: unknown): Refusal | undefined {
  if (typeof body !== "object" || body === null || !("error" in body)) return undefined;
  const { error } = body as { error: Refusal & { data?: Refusal } };
  return { ...error, ...error.data };
}

function judgeRefusal(refusal: Refusal | undefined, text: string): string {
  const shown = text.slice(0, 500);
  expect(REASONS, shown).toContain(refusal?.reason);
  expect(refusal?.reason, shown).not.toBe("INTERNAL");
  expect(refusal?.requestId, shown).toMatch(/^[\w.-]{1,64}$/);
  expect(refusal?.message, shown).toEqual(expect.any(String));
  expect(text).not.toMatch(INTERNALS);
  expect(text.length).toBeLessThan(REFUSAL_MAX_LENGTH);
  return refusal?.reason ?? "";
}
