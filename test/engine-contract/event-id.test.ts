import { expect, test } from "vitest";
import { isEventId, isLaterEventId } from "../../server/engine-contract/event-id.ts";

test.each(["0", "1", "10", "1795973494865", "9".repeat(40)])("%s is an event id", (id) => {
  expect(isEventId(id)).toBe(true);
});

test.each([
  undefined,
  "",
  "01",
  "-1",
  "+1",
  "1.5",
  "1e3",
  "0x1",
  " 1",
  "1 ",
  "a",
  "1-2",
  "١",
  "9".repeat(41),
])("%s is no event id", (id) => {
  expect(isEventId(id)).toBe(false);
  expect(isLaterEventId(id, "")).toBe(false);
});

test("event ids grow as numbers do, also where a number of JavaScript would round them", () => {
  const ids = ["", "0", "1", "9", "10", "99", "100", "9007199254740992", "9007199254740993", "1".repeat(40)];
  for (const [index, id] of ids.entries()) {
    for (const [otherIndex, other] of ids.entries()) {
      if (id !== "") expect(isLaterEventId(id, other)).toBe(index > otherIndex);
    }
  }
});
