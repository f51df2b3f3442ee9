import { execFile } from "node:child_process";
import { randomBytes, randomInt } from "node:crypto";
import { promisify } from "node:util";
import { findProgram } from "./find-program.ts";
import { listenInNamespace } from "./listen-in-namespace.ts";

const run = promisify(execFile);
const ip = findProgram("ip");
const PORT = 7_000;

const call = async (...words: string[]) => run(ip ?? "", words);

export const CAN_MAKE_HOSTS = ip !== undefined && process.getuid?.() === 0;

/** A network namespace that stands for another host, with one listener. Needs root. Changes no firewall rule. */
export async function openOutsideHost(): Promise<AsyncDisposable & { address: string; port: number }> {
  await using stack = new AsyncDisposableStack();
  const name = `eho-${randomBytes(3).toString("hex")}`;
  // One of 64 networks of four addresses, so that several test runs rarely meet.
  const first = 4 * randomInt(64);
  const [ours, theirs] = [`203.0.113.${first + 1}`, `203.0.113.${first + 2}`];
  await call("netns", "add", name);
  // The interfaces leave with their namespace.
  stack.defer(async () => void (await call("netns", "del", name)));
  await call("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name);
  await call("address", "add", `${ours}/30`, "dev", name);
  await call("link", "set", name, "up");
  const inside = async (...words: string[]) => call("-n", name, ...words);
  await inside("link", "set", "lo", "up");
  await inside("address", "add", `${theirs}/30`, "dev", "eth0");
  await inside("link", "set", "eth0", "up");
  await inside("route", "add", "default", "via", ours);
  await listenInNamespace(stack, { namespace: name, port: PORT });
  const opened = stack.move();
  return { address: theirs, port: PORT, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}
