import { expect, test } from "vitest";
import { readStoredText, toStoredText } from "../../../server/api/routers/stored-text.ts";

test.each([
  ["as text", { ...toStoredText('{"n":1.0}'), generation: 3 }, '{"n":1.0}'],
  ["by an earlier version of rpc.call", { result: { n: 1 }, generation: 3 }, '{"n":1}'],
  ["by an earlier version, with a field `json`", { json: "a", revision: 2 }, '{"json":"a","revision":2}'],
  ["by an earlier version, with a field `format`", { format: "x", json: "a" }, '{"format":"x","json":"a"}'],
])("a reply that was stored %s is read as the text of its result", (_name, reply, text) => {
  expect(readStoredText(reply)).toBe(text);
});
