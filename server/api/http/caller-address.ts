import type { IncomingMessage } from "node:http";
import { isIPv6 } from "node:net";

/** The part of an IPv6 address that one caller usually has for itself: the first four of eight groups. */
const OWN_GROUPS = 4;

/**
 * Returns the address that a request came from, as callers are told apart: an IPv4 address, or the /64 of an IPv6 one.
 * With `trustProxy`, this is the last address in `X-Forwarded-For`, which the proxy in front of us has added. The
 * addresses before it are the caller's own words.
 */
export function toCallerAddress(
  { headers, socket }: Pick<IncomingMessage, "headers" | "socket">,
  trustProxy: boolean,
): string {
  const forwarded = trustProxy ? findLast(headers["x-forwarded-for"]) : undefined;
  return toAddressGroup(forwarded ?? socket.remoteAddress ?? "unknown");
}

function findLast(header: string | string[] | undefined): string | undefined {
  const text = Array.isArray(header) ? header.at(-1) : header;
  const last = text?.split(",").at(-1)?.trim();
  return last === undefined || last === "" ? undefined : last.slice(0, 100);
}

/** An IPv4 address (also one written as IPv6) is a group of its own; IPv6 addresses of one /64 are one group. */
export function toAddressGroup(address: string): string {
  const plain = toPlainAddress(address);
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(plain)?.[1];
  if (mapped !== undefined) return mapped;
  if (!isIPv6(plain)) return plain;
  const [head = "", tail] = plain.split("::", 2);
  const first = head === "" ? [] : head.split(":");
  const last = tail === undefined || tail === "" ? [] : tail.split(":");
  // The last part may be an IPv4 address, which stands for two groups.
  const lastCount = last.length + (plain.includes(".") ? 1 : 0);
  const missing = tail === undefined ? 0 : Math.max(0, 8 - first.length - lastCount);
  const groups = [...first, ...Array.from({ length: missing }, () => "0"), ...last];
  const own = groups.slice(0, OWN_GROUPS).map((group) => Number.parseInt(group, 16).toString(16));
  return `${own.join(":")}::/64`;
}

/** Some proxies add a port, and write IPv6 addresses in brackets. A zone names an interface of this host. */
function toPlainAddress(address: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(address)?.[1];
  const [plain = ""] = (bracketed ?? address).split("%", 1);
  return /^(\d+\.\d+\.\d+\.\d+):\d+$/.exec(plain)?.[1] ?? plain;
}
