import { expect } from "vitest";
import { REASONS } from "../../server/errors.ts";

/** What betrays our insides: stacks, paths, statements, and the names of what we are built on. */
const INSIDES =
  /\n\s+at |node_modules|\.[jt]s:\d|file:\/\/|Failed query|select \$|insert into|ZodError|TRPCError/;
/** No refusal needs more room, however large the request was. */
const REFUSAL_MAX_LENGTH = 12_000;

interface Refusal {
  reason?: string;
  requestId?: string;
  message?: string;
}

/**
 * Holds a reply to what every reply is held to: it is JSON, and a refusal has a listed reason that is not INTERNAL,
 * a request id, and nothing of our insides. Returns the reasons in it; none of a success.
 */
export function judgeReply(reply: { status: number; text: string }): string[] {
  const body: unknown = JSON.parse(reply.text);
  const refusals = (Array.isArray(body) ? body : [body]).map(findRefusal).filter((one) => one !== undefined);
  expect(refusals.length > 0, reply.text.slice(0, 500)).toBe(reply.status >= 400 || reply.status === 207);
  return refusals.map((refusal) => judgeRefusal(refusal, reply.text));
}

/** The same for a tRPC subscription, whose refusals are events. */
export function judgeStream(text: string): string[] {
  const errors = text.matchAll(/event: serialized-error\ndata: (.*)\n/g);
  return [...errors].map(([, data = ""]) => judgeRefusal(findRefusal({ error: JSON.parse(data) }), data));
}

/** Each of the HTTP replies in what came over a connection, one character a byte, and that there is nothing else. */
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
  expect(text).not.toMatch(INSIDES);
  expect(text.length).toBeLessThan(REFUSAL_MAX_LENGTH);
  return refusal?.reason ?? "";
}
