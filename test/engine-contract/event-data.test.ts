import { expect, test } from "vitest";
import { parseEventData } from "../../server/engine-contract/event-data.ts";

test("data of very many values counts as a string, and data below the bound is parsed", () => {
  const costly = `[${Array(340_000).fill("[]").join(",")}]`;
  expect(parseEventData(costly)).toEqual({ value: costly, json: JSON.stringify(costly) });
  const large = JSON.stringify({ text: "[,{".repeat(100_000), list: Array(40_000).fill(1) });
  expect(parseEventData(large).value).toEqual(JSON.parse(large));
});
