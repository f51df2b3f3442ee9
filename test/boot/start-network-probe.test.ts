import { expect, test } from "vitest";
import { startNetworkProbe } from "../../server/boot/start-network-probe.ts";
import type { Log } from "../../server/log.ts";
import {
  RuntimeFailure,
  type OpenTarget,
  type RuntimeFailureKind,
} from "../../server/runtime/engine-runtime.ts";
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

const failing = (kind: RuntimeFailureKind, message: string) => async () =>
  Promise.reject(new RuntimeFailure(kind, message));

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
  expect(await probe(failing("refused", "no such builder"))).toEqual([
    { fields: { error: "no such builder" }, message: "the probe of the engines' network failed" },
  ]);
});

test("a probe that the close of the service ends is not a warning", async () => {
  expect(await probe(failing("unreachable", "the runtime was closed"), true)).toEqual([]);
  expect(await probe(async () => ["host"], true)).toEqual([]);
});
