import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { findProgram } from "../support/find-program.ts";
import { listenInNamespace } from "../support/listen-in-namespace.ts";

const SCRIPT = join(import.meta.dirname, "..", "..", "deploy", "engine-firewall.sh");
const run = promisify(execFile);
const ip = findProgram("ip");
const iptables = findProgram("iptables");

/** Addresses outside of the host: a public one, and two in closed ranges. */
const PUBLIC = "203.0.113.2";
const PRIVATE = "192.168.77.2";
const RESOLVER = "192.168.77.3";
/** On the host, as a cloud's agent may have it. */
const METADATA = "169.254.169.254";
const GATEWAY = "10.99.0.1";
const ENGINE = "10.99.0.2";
const PORT = 7_000;

const at = async (namespace: string, ...words: string[]) =>
  run(ip ?? "", ["netns", "exec", namespace, ...words]);

describe.skipIf(ip === undefined || iptables === undefined || process.getuid?.() !== 0)(
  "the firewall of deploy/engine-firewall.sh",
  () => {
    const id = randomBytes(3).toString("hex");
    const [host, engine, outside] = [`ehh-${id}`, `ehe-${id}`, `eho-${id}`];
    const stack = new AsyncDisposableStack();

    const firewall = async (action: string, env: Record<string, string> = {}) =>
      at(host, "env", ...Object.entries(env).map(([name, value]) => `${name}=${value}`), SCRIPT, action);
    const rules = async () => (await at(host, "iptables", "-S")).stdout;

    beforeAll(async () => {
      for (const namespace of [host, engine, outside]) {
        await run(ip ?? "", ["netns", "add", namespace]);
        stack.defer(async () => void (await run(ip ?? "", ["netns", "del", namespace])));
        await at(namespace, "ip", "link", "set", "lo", "up");
      }
      // Interfaces leave with their namespaces.
      await at(host, "ip", "link", "add", "eh-test", "type", "bridge");
      await at(host, "ip", "link", "add", "to-engine", "type", "veth", "peer", "eth0", "netns", engine);
      await at(host, "ip", "link", "add", "to-world", "type", "veth", "peer", "eth0", "netns", outside);
      await at(host, "ip", "link", "set", "to-engine", "master", "eh-test");
      for (const name of ["eh-test", "to-engine", "to-world"])
        await at(host, "ip", "link", "set", name, "up");
      for (const [name, address] of [
        ["eh-test", `${GATEWAY}/24`],
        ["to-world", "203.0.113.1/24"],
        ["to-world", "192.168.77.1/24"],
        ["lo", `${METADATA}/32`],
      ] as const)
        await at(host, "ip", "address", "add", address, "dev", name);
      for (const [namespace, addresses, gateway] of [
        [engine, [`${ENGINE}/24`], GATEWAY],
        [outside, [`${PUBLIC}/24`, `${PRIVATE}/24`, `${RESOLVER}/24`], "203.0.113.1"],
      ] as const) {
        await at(namespace, "ip", "link", "set", "eth0", "up");
        for (const address of addresses) await at(namespace, "ip", "address", "add", address, "dev", "eth0");
        await at(namespace, "ip", "route", "add", "default", "via", gateway);
      }
      await at(host, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1");
      // What Docker makes.
      await at(host, "iptables", "-N", "DOCKER-USER");
      await at(host, "iptables", "-A", "FORWARD", "-j", "DOCKER-USER");
      await listenInNamespace(stack, { namespace: host, port: PORT });
      await listenInNamespace(stack, { namespace: outside, port: PORT });
      await listenInNamespace(stack, { namespace: engine, port: PORT });
    });

    afterAll(async () => stack.disposeAsync());

    const ALL = [PUBLIC, PRIVATE, RESOLVER, METADATA, GATEWAY];
    const reachedByEngine = async () => (await reached(engine, ALL)).toSorted();

    it("leaves an engine the public network, and closes the host, private networks and the metadata service", async () => {
      // Without rules everything is reached, so the namespaces are no hindrance.
      expect(await reachedByEngine()).toEqual(ALL.toSorted());
      await expect(firewall("check")).rejects.toMatchObject({ code: 1 });

      await firewall("apply");
      await firewall("check");
      expect(await reachedByEngine()).toEqual([PUBLIC]);
      // The service calls engines from the host.
      expect(await reached(host, [ENGINE, PUBLIC])).toEqual(expect.arrayContaining([ENGINE, PUBLIC]));

      await at(host, "iptables", "-w", "-F", "ENGINEHOUSE-OUT");
      await expect(firewall("check")).rejects.toMatchObject({ code: 1 });

      await firewall("apply");
      const once = await rules();
      await firewall("apply");
      expect(await rules()).toBe(once);
    });

    it("opens what ENGINE_ALLOW names, follows ENGINE_BRIDGES, and is gone after remove", async () => {
      await firewall("apply", { ENGINE_ALLOW: `${RESOLVER}:${PORT}/tcp ${GATEWAY}:${PORT}/udp` });
      expect(await reachedByEngine()).toEqual([RESOLVER, PUBLIC].toSorted());
      await firewall("apply", { ENGINE_BRIDGES: "br-other" });
      expect(await reachedByEngine()).toEqual(ALL.toSorted());
      await firewall("apply", { ENGINE_BRIDGES: "br-other eh-test" });
      expect(await reachedByEngine()).toEqual([PUBLIC]);
      await firewall("remove");
      expect(await rules()).not.toContain("ENGINEHOUSE");
      expect(await reachedByEngine()).toEqual(ALL.toSorted());
    });
  },
);

/** The addresses that a program in the namespace can connect to. */
async function reached(namespace: string, addresses: readonly string[]): Promise<string[]> {
  const program = `
    const { connect } = require("net");
    for (const host of ${JSON.stringify(addresses)}) {
      const socket = connect({ host, port: ${PORT} });
      socket.setTimeout(5000, () => socket.destroy());
      socket.on("connect", () => { console.log(host); socket.destroy(); }).on("error", () => {});
    }`;
  const { stdout } = await at(namespace, process.execPath, "-e", program);
  return stdout.split("\n").filter((line) => line !== "");
}
