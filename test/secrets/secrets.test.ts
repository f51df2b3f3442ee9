import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { createKey } from "../../server/keys/key-format.ts";
import { Secrets } from "../../server/secrets/secrets.ts";

const PEM_BODY = Array.from({ length: 4 }, (_, line) =>
  `MIIEvQIBADANBgkqhkiG9w0BAQ${line}`.padEnd(64, "Fx7/+"),
);
const PEM = `-----BEGIN PRIVATE KEY-----\n${PEM_BODY.join("\n")}\n-----END PRIVATE KEY-----\n`;
const SERVICE_ACCOUNT = JSON.stringify(
  { type: "service_account", private_key: PEM, client: { id: "10394857" } },
  null,
  2,
);

const SECRETS: [string, string][] = [
  ["a plain value", "sk-proj-0123456789abcdef"],
  ["a value with a quote", 'pa"ss"word'],
  ["a value with backslashes", String.raw`C:\new\temp\u0041`],
  ["a value with signs of URLs and HTML", "p&s<w>o'r?d=%41+/ü€"],
  ["a value with a letter outside of the BMP", "käse🧀geheim"],
  ["a value of several lines", "first line of it\nsecond line of it"],
  ["a service account", SERVICE_ACCOUNT],
];

const escape = (toUnit: (hex: string) => string) => (text: string) =>
  [...Array(text.length).keys()]
    .map((at) => toUnit(text.charCodeAt(at).toString(16).padStart(4, "0")))
    .join("");
const json = (text: string) => JSON.stringify(text).slice(1, -1);
const units = escape((hex) => `\\u${hex}`);
const mixedUnits = (text: string) =>
  [...Array(text.length).keys()]
    .map((at) => (at % 2 ? json(text.charAt(at)) : units(text.charAt(at)).toUpperCase().replace("U", "u")))
    .join("");
const url = (text: string) => encodeURIComponent(text);
const form = (text: string) => new URLSearchParams({ a: text }).toString().slice(2);
const everyByte = (text: string) =>
  [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
const html = (text: string) =>
  text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("'", "&#x27;");
const coloured = (text: string) => Array.from(text).join("\u001b[31m");
const base64 = (text: string) => Buffer.from(text).toString("base64");
const ENCODINGS: Readonly<Record<string, (text: string) => string>> = {
  plain: (text) => text,
  json,
  "json twice": (text) => json(json(text)),
  "json three times": (text) => json(json(json(text))),
  units,
  "upper-case and mixed units": mixedUnits,
  "units in json": (text) => json(units(text)),
  url,
  "url twice": (text) => url(url(text)),
  form,
  "every byte in a url": everyByte,
  "json in a url": (text) => url(json(text)),
  html,
  "json in html": (text) => html(json(text)),
  coloured,
  base64,
  base64url: (text) => Buffer.from(text).toString("base64url"),
  "json in base64": (text) => base64(json(text)),
  "base64 behind one byte": (text) => base64(`:${text}`),
  "base64 behind two bytes": (text) => base64(`a:${text}`),
  "base64 in json": (text) => json(base64(`${text}??>>`)),
  hex: (text) => Buffer.from(text).toString("hex"),
  "upper-case hex": (text) => Buffer.from(text).toString("hex").toUpperCase(),
};

describe.each(SECRETS)("%s is hidden", (_what, secret) => {
  test.each(Object.keys(ENCODINGS))("as %s, and what surrounds it stays", (name) => {
    const encode = ENCODINGS[name] ?? json;
    const secrets = new Secrets(["another one", secret]);
    expect(secrets.hide(`before: ${encode(secret)}, after`)).toBe("before: [hidden], after");
  });
});

test("a value is hidden in any three encodings on top of each other", () => {
  const layers = fc.array(fc.constantFrom(json, units, mixedUnits, url, everyByte, html, coloured), {
    maxLength: 3,
  });
  const value = fc
    .string({ unit: "grapheme", minLength: 8, maxLength: 30 })
    .filter((text) => /[a-z0-9]/i.test(text));
  fc.assert(
    fc.property(value, layers, (secret, encodings) => {
      const text = encodings.reduce((inner, encode) => encode(inner), secret);
      expect(new Secrets([secret]).hide(`x ${text} y`)).not.toContain(text);
    }),
    { numRuns: 300 },
  );
});

test("each line of a value, and each text in a value of JSON, is hidden alone", () => {
  const secrets = new Secrets([SERVICE_ACCOUNT]);
  for (const line of PEM_BODY) expect(secrets.hide(`ERROR [pem] ${line}`)).toBe("ERROR [pem] [hidden]");
  expect(secrets.hide(`key ${PEM}`)).not.toMatch(/MIIE|PRIVATE/);
  expect(secrets.hide("client 10394857")).toBe("client [hidden]");
});

test("the password in the URL of a value is hidden alone", () => {
  const secrets = new Secrets(["postgres://me:p%40ssw0rd!@db/x"]);
  expect(secrets.hide("login with p@ssw0rd! failed, p%40ssw0rd! too")).toBe(
    "login with [hidden] failed, [hidden] too",
  );
});

describe("a value of three to seven characters is hidden as a whole word only", () => {
  const secrets = new Secrets(["abc", 'k"y', "1", "--", "on"]);
  test.each([
    ["key abc.", "key [hidden]."],
    ["abcdef xabc abc_ 0abc", "abcdef xabc abc_ 0abc"],
    [String.raw`{"key":"abc","next":"\nabc"}`, String.raw`{"key":"[hidden]","next":"\n[hidden]"}`],
    [String.raw`{"key":"k\"y"}`, `{"key":"[hidden]"}`],
    ["exit code 1 -- later on", "exit code 1 -- later on"],
  ])("%s", (text, shown) => {
    expect(secrets.hide(text)).toBe(shown);
  });
});

test.each(["engine", "platform", "operator"] as const)("every %s key is hidden, known or not", (kind) => {
  const { plaintext } = createKey(kind);
  const secrets = new Secrets([]);
  for (const encode of Object.values(ENCODINGS)) {
    expect(secrets.hide(`/trpc/${encode(plaintext)}?`)).not.toContain(encode(plaintext));
  }
  expect(secrets.hide(`/trpc/x.${plaintext}`)).toBe("/trpc/x.[hidden]");
});

test("texts and names of a JSON value are hidden, and all other values stay", () => {
  const secrets = new Secrets(["sk-0123456789"]);
  const kept = { n: 1.5, yes: true, none: null, text: "a", list: [1, "b"] };
  expect(secrets.hideIn({ kept, "x sk-0123456789": [{ deep: "sk-0123456789" }] })).toEqual({
    kept,
    "x [hidden]": [{ deep: "[hidden]" }],
  });
});

test("a secret that is cut off at the end or at the beginning is hidden", () => {
  const secret = "sk-0123456789abcdefghijklmnopqrstuvwxyz";
  const secrets = new Secrets([secret]);
  for (let length = 0; length < 120; length += 1) {
    const start = secrets.hideInStart(`abc ${units(secret)} def`, length);
    const end = secrets.hideInEnd(`abc ${units(secret)} def`, length);
    expect(start.replace("[hidden]", "")).not.toMatch(/\\u|sk/);
    expect(end.replace("[hidden]", "")).not.toMatch(/\\|[0-9]{2}|sk/);
  }
  expect(secrets.hideInEnd("one two three", 5)).toBe("three");
  expect(secrets.hideInStart("one two three", 3)).toBe("one");
});
