import type { IncomingMessage } from "node:http";
import { describe, expect, test } from "vitest";
import { toAddressGroup, toCallerAddress } from "../../../server/api/http/caller-address.ts";

test.each([
  ["192.0.2.1", "192.0.2.1"],
  ["::ffff:192.0.2.1", "192.0.2.1"],
  ["192.0.2.1:4711", "192.0.2.1"],
  ["2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"],
  ["2001:0db8:0001:0002::1", "2001:db8:1:2::/64"],
  ["2001:db8::1", "2001:db8:0:0::/64"],
  ["2001:db8::7:3:4:5:6", "2001:db8:0:7::/64"],
  ["::1", "0:0:0:0::/64"],
  ["64:ff9b::192.0.2.1", "64:ff9b:0:0::/64"],
  ["[2001:db8:1:2::1]:443", "2001:db8:1:2::/64"],
  ["fe80::1%eth0", "fe80:0:0:0::/64"],
  ["unknown", "unknown"],
  ["nonsense:", "nonsense:"],
])("the address %s counts as %s", (address, group) => {
  expect(toAddressGroup(address)).toBe(group);
});

function request(forwarded: string | undefined): Pick<IncomingMessage, "headers" | "socket"> {
  const headers = forwarded === undefined ? {} : { "x-forwarded-for": forwarded };
  return { headers, socket: { remoteAddress: "10.0.0.1" } as IncomingMessage["socket"] };
}

describe("X-Forwarded-For", () => {
  test("is ignored without ORCH_TRUST_PROXY, because any caller can send it", () => {
    expect(toCallerAddress(request("192.0.2.1"), false)).toBe("10.0.0.1");
  });

  test.each([
    ["192.0.2.1", "192.0.2.1"],
    ["198.51.100.7, 192.0.2.1", "192.0.2.1"],
    ["made up, 2001:db8:1:2::9", "2001:db8:1:2::/64"],
    ["", "10.0.0.1"],
    [undefined, "10.0.0.1"],
  ])("%j behind a trusted proxy is %s: the address that the proxy has added", (forwarded, address) => {
    expect(toCallerAddress(request(forwarded), true)).toBe(address);
  });
});
