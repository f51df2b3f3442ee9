import { array, assert, constantFrom, jsonValue, property, string, tuple } from "fast-check";
import { expect, test } from "vitest";
import { cutEventData } from "../../client/cut-event-data.ts";

const toBatch = (data: readonly string[], type = "text_delta") => {
  const events = data.map(
    (text, index) => `{"seq":${index + 1},"at":"2026","type":${JSON.stringify(type)},"data":${text}}`,
  );
  return `{"turnId":"t","events":[${events.join(",")}],"end":{"status":"completed","data":1,"events":[]}}`;
};

test("numbers keep the digits, the sign and the form that the engine wrote", () => {
  const data = [
    "9007199254740993",
    "1e400",
    "-0",
    '{"a":[1.0,-0.0,1E5],"b":12345678901234567890}',
    "[]",
    "{}",
  ];
  expect(cutEventData(toBatch(data))).toEqual(data);
});

test("what looks like the end of an event inside of its data is not one", () => {
  const data = [
    '"},{\\"seq\\":2,\\"data\\":1"',
    '[{"seq":2,"at":"","type":"error","data":{"data":[1,2]}}]',
    String.raw`"\\"`,
    String.raw`"\\\""`,
    '{"\\"data\\"":"]}","events":[{"data":2}]}',
    "null",
    "true",
  ];
  expect(cutEventData(toBatch(data, 'a"b\\'))).toEqual(data);
});

test("white space between the parts is allowed", () => {
  const text =
    ' { "turnId" : "t" , "events" : [ { "seq" : 1 , "data" : [ 1 , 2 ] } , { "data" : 7 , "seq" : 2 } ] } ';
  expect(cutEventData(text)).toEqual(["[ 1 , 2 ]", "7"]);
  expect(cutEventData('{"events":[ ]}')).toEqual([]);
});

test("the data of any batch is cut out exactly", () => {
  const anyData = tuple(jsonValue(), constantFrom(undefined, 1)).map(([value, indent]) =>
    JSON.stringify(value, undefined, indent),
  );
  assert(
    property(array(anyData), string(), (data, type) => {
      expect(cutEventData(toBatch(data, type))).toEqual(data);
    }),
  );
});
