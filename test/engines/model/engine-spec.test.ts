import { expect, test } from "vitest";
import type { EngineRow } from "../../../db/engines.ts";
import { toContainerSpec, toEngineSpec } from "../../../server/engines/model/engine-spec.ts";
import { testConfig } from "../test-config.ts";

const config = testConfig({ internalSubnet: "10.99.0.0/16", engineTmpMb: 200, engineOpenFiles: 1_000 });
const choice = { image: "reference:1", imageFrom: "default", limitOverrides: { memoryMb: 128 } } as const;

function containerOf(spec: ReturnType<typeof toEngineSpec>, firstReadyAt: string | null) {
  const row: Partial<EngineRow> = { spec, firstReadyAt, keyHash: "", nextKeyHash: null };
  return toContainerSpec(config, row as EngineRow, "sha256:1");
}

test("only a policy with an internal network puts the engine on it, and an older spec stays as it is", () => {
  const plain = toEngineSpec(config, choice);
  expect(Object.keys(plain)).not.toContain("internal");
  expect(containerOf(plain, null)).toMatchObject({ network: "engine_net", internalSubnet: null });
  const internal = toEngineSpec(config, { ...choice, internal: true });
  expect(containerOf(internal, null)).toMatchObject({
    network: "engine_net_internal",
    internalSubnet: "10.99.0.0/16",
  });
});

test("an engine refuses root until it was ready once, because root may own the volume of an older one", () => {
  const spec = toEngineSpec(config, choice);
  expect(containerOf(spec, null).refusesRoot).toBe(true);
  expect(containerOf(spec, "2026-01-01T00:00:00Z").refusesRoot).toBe(false);
});

test("temporary files take at most half of the memory, and all engines have the installation's descriptors", () => {
  const spec = toEngineSpec(config, choice);
  expect(containerOf(spec, null)).toMatchObject({ tmpMb: 64, openFiles: 1_000 });
});
