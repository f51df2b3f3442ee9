import { expect, test } from "vitest";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { isRowMac, toMacInstant, toRowMac } from "../../server/keys/row-mac.ts";

const [k1, k2] = [generateMasterKeys(), generateMasterKeys()];
const ring = openKeyring(`${k1},${k2}`);
const INPUT = { purpose: "engine", fields: ["id", 1, null, true, ["a", "b"]] } as const;

test("a MAC is valid for the same purpose and fields only", () => {
  const mac = toRowMac(ring, INPUT);
  expect(isRowMac(ring, INPUT, mac)).toBe(true);
  expect(isRowMac(ring, { ...INPUT, purpose: "operator" }, mac)).toBe(false);
  for (const fields of [
    ["id", 1, null, true, ["a", "c"]],
    ["id", 1, null, true, ["b", "a"]],
    ["id", 1, null, true, "a", "b"],
    ["id", "1", null, true, ["a", "b"]],
    ["id", 1, null, true],
    ["other", 1, null, true, ["a", "b"]],
  ]) {
    expect(isRowMac(ring, { ...INPUT, fields }, mac)).toBe(false);
  }
});

test("any key of the ring verifies, and only the first one makes MACs", () => {
  const old = toRowMac(openKeyring(k2), INPUT);
  expect(isRowMac(ring, INPUT, old)).toBe(true);
  expect(toRowMac(ring, INPUT).startsWith(`${ring.firstKeyId}:`)).toBe(true);
  expect(isRowMac(openKeyring(k1), INPUT, old)).toBe(false);
  // The key is another one with the same id.
  const imitation = `${ring.firstKeyId}:${generateMasterKeys().split(":")[1]}`;
  expect(isRowMac(openKeyring(imitation), INPUT, toRowMac(ring, INPUT))).toBe(false);
});

test("a missing, cut or empty MAC is not valid", () => {
  const mac = toRowMac(ring, INPUT);
  for (const bad of [
    null,
    undefined,
    "",
    ":",
    mac.slice(0, -1),
    `${ring.firstKeyId}:`,
    mac.split(":")[1],
    "nope:x",
  ]) {
    expect(isRowMac(ring, INPUT, bad)).toBe(false);
  }
});

test("an instant has one form, and text that is no instant stays as it is", () => {
  expect(toMacInstant("2026-01-02 03:04:05.678901+00")).toBe("2026-01-02T03:04:05.678Z");
  expect(toMacInstant("2026-01-02 04:04:05.678+01")).toBe("2026-01-02T03:04:05.678Z");
  expect(toMacInstant("infinity")).toBe("infinity");
  expect(toMacInstant(null)).toBe(null);
});
