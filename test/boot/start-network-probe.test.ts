import { expect, test } from "vitest";
import { startNetworkProbe } from "../../server/boot/start-network-probe.ts";
import type { Log } from "../../server/log.ts";
import { RuntimeFailure, type OpenTarget } from "../../server/runtime/engine-runtime.ts";
import { testConfig } from "../engines/test-config.ts";

interface Line {
  fields: object;
  message: string;
}

async function probe(find: () => Promise<OpenTarget[]>, isClosed = false): Promise<Line[]> {
  const lines: Line[] = [];
  const warn = (fields: object, message: string) => void lines.push({ fields, message });
  const log = { warn } as Log;
  using probing = startNetworkProbe({ config: testConfig(), log, runtime: { findOpenTargets: find } });
  if (isClosed) probing[Symbol.dispose]();
  await probing.done;
  return lines;
}

test("a network that a firewall closes is not mentioned", async () => {
  expect(await probe(async () => [])).toEqual([]);
});

test("an open network is a warning that names the rules, and so is a probe that failed", async () => {
  expect(await probe(async () => ["host", "metadata"])).toEqual([
    {
      fields: { reached: ["host", "metadata"], rules: "deploy/engine-firewall.sh" },
      message: "engines reach what a firewall should close",
    },
  ]);
  const refuse = async () => Promise.reject(new RuntimeFailure("refused", "no such builder"));
  expect(await probe(refuse)).toEqual([
    { fields: { error: "no such builder" }, message: "the probe of the engines' network failed" },
  ]);
});

test("a probe that the close of the service ends is not a warning", async () => {
  const refuse = async () => Promise.reject(new RuntimeFailure("unreachable", "the runtime was closed"));
  expect(await probe(refuse, true)).toEqual([]);
  expect(await probe(async () => ["host"], true)).toEqual([]);
});
