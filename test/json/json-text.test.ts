import canonicalize from "canonicalize";
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { toCanonicalJson } from "../../server/json/canonical-json.ts";
import { findMember, splitArray, splitObject, toJsonText, withSource } from "../../server/json/json-text.ts";

const json = fc.jsonValue({ stringUnit: "binary" });
const indent = fc.constantFrom(undefined, 1, "\t");
const name = fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("__proto__", "1", '"', "\\"));

test("the parts of an object and an array are the texts of their values", () => {
  const pairs = fc.array(fc.tuple(name, json));
  fc.assert(
    fc.property(pairs, indent, (members, space) => {
      const values = members.map(([, value]) => JSON.stringify(value, null, space));
      const names = members.map(([own]) => own);
      const gap = space === undefined ? "" : ` \t\r\n`;
      const items = gap + values.join(`${gap},${gap}`) + gap;
      expect(splitArray(`${gap}[${items}]${gap}`)).toEqual(values);
      const fields = names.map(
        (own, index) => `${gap}${JSON.stringify(own)}${gap}:${gap}${values[index]}${gap}`,
      );
      const object = `${gap}{${fields.join(",") || gap}}${gap}`;
      expect(splitObject(object)).toEqual(names.map((own, index) => [own, values[index]]));
      for (const own of names) expect(findMember(object, own)).toBe(values[names.lastIndexOf(own)]);
      expect(findMember(object, "absent, and longer than any name of a generated object")).toBeUndefined();
    }),
  );
});

test("a copy of an object does not have its source text", () => {
  const object = withSource({ a: 1 }, '{"a":1.0}');
  expect(toJsonText(object)).toBe('{"a":1.0}');
  expect(toJsonText({ ...object })).toBe('{"a":1}');
  expect(object).toEqual({ a: 1 });
});

test("canonical JSON is that of RFC 8785, from a value and from its source text", () => {
  fc.assert(
    fc.property(json, indent, (value, space) => {
      const text = JSON.stringify({ value }, null, space);
      const parsed = JSON.parse(text) as object;
      const expected = canonicalize(parsed);
      expect(toCanonicalJson(parsed)).toBe(expected);
      expect(toCanonicalJson(withSource(parsed, text))).toBe(expected);
    }),
  );
});

const canonical = (text: string) => toCanonicalJson(withSource(JSON.parse(text) as object, text));

test("canonical JSON keeps how a number of a source text is written, and nothing else of the text", () => {
  expect(canonical('{ "b" : [ 1.0 , -0 ],"\\u0061":"\\u00e9\\n" }')).toBe('{"a":"é\\n","b":[1.0,-0]}');
  expect(canonical('{"a":1e400,"a":9007199254740993}')).toBe('{"a":9007199254740993}');
  expect(canonical('{"a":"\\ud800"}')).toBe('{"a":"\\ud800"}');
});
