import { expect, test } from "vitest";
import { findLastEventId } from "../../../server/api/sse/last-event-id.ts";

test.each([
  ["5", "3", "5"],
  ["", "3", "3"],
  [undefined, "3", "3"],
  ["", "", undefined],
  [undefined, null, undefined],
])("the header %j with %j in the query is the cursor %j", (header, fromQuery, cursor) => {
  expect(findLastEventId({ headers: { "last-event-id": header } }, fromQuery)).toBe(cursor);
});
