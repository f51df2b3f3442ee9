import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { EngineRow } from "../../../db/engines.ts";
import { DESIRED_STATES, ENGINE_STATUSES } from "../../../server/engines/model/engine-status.ts";
import { planEngine, type Step } from "../../../server/engines/reconcile/plan-engine.ts";
import { isAllowed, MOVES } from "../../../server/engines/model/moves.ts";
import type { ContainerObservation } from "../../../server/runtime/engine-runtime.ts";
import { toProcessIdentity } from "../../../server/runtime/local-process.ts";

/*
 * A small model of the world that applies the planner's steps: the row as reconcile records it, and containers as a
 * daemon has them. From every initial state, it must reach a steady state in which observed and desired state agree.
 */

const POLICY = { isResync: true, bootTimeoutMs: 60_000, healthMaxFailures: 3 };
const ENDPOINT = "http://engine.test";

type Container = Omit<ContainerObservation, "processIdentity">;

interface World {
  row: EngineRow;
  runtime: { publishesHostPorts: boolean; startsOnEnsure: boolean };
  containers: Container[];
  hasData: boolean;
  nowMs: number;
  processes: number;
  /** Whether the engine answers probes with success while it runs. */
  healthy: boolean;
  /** Whether each new container has a defect too. */
  makesDefects: boolean;
  outOfMemory: boolean;
}

const STATES = ["created", "running", "paused", "restarting", "exited"] as const;

const arbitraryContainer = fc.record({
  incarnation: fc.integer({ min: 1, max: 3 }),
  state: fc.constantFrom(...STATES),
  exitCode: fc.constantFrom(null, 0, 1),
  restartCount: fc.integer({ min: 0, max: 4 }),
  oomKilled: fc.boolean(),
  defect: fc.constantFrom(null, null, "no network"),
});

const arbitraryWorld = fc
  .record({
    status: fc.constantFrom(...ENGINE_STATUSES),
    desired: fc.constantFrom(...DESIRED_STATES.filter((desired) => desired !== "paused")),
    incarnation: fc.integer({ min: 1, max: 3 }),
    containers: fc.uniqueArray(arbitraryContainer, {
      selector: (container) => container.incarnation,
      maxLength: 3,
    }),
    hasData: fc.boolean(),
    wasReady: fc.boolean(),
    hasPort: fc.boolean(),
    hasImage: fc.boolean(),
    restartPending: fc.boolean(),
    restartAsked: fc.boolean(),
    healthy: fc.boolean(),
    publishesHostPorts: fc.boolean(),
    startsOnEnsure: fc.boolean(),
    makesDefects: fc.boolean(),
    outOfMemory: fc.boolean(),
  })
  .map((given): World => {
    const { publishesHostPorts, startsOnEnsure } = given;
    const hasAddress = given.hasPort || given.containers.length > 0;
    const containers = given.containers
      .filter((container) => container.incarnation <= given.incarnation)
      .map((container, index) => toContainer(container, { index, publishesHostPorts }))
      .toSorted((a, b) => b.incarnation - a.incarnation);
    const current = containers.find((container) => container.incarnation === given.incarnation);
    const row = toRow({
      status:
        given.desired === "destroyed"
          ? "destroying"
          : given.status === "destroying"
            ? "running"
            : given.status,
      desired: given.desired,
      incarnation: given.incarnation,
      hostPort: publishesHostPorts && hasAddress ? 9_001 : null,
      endpoint: hasAddress ? ENDPOINT : null,
      firstReadyAt: given.wasReady ? at(0) : null,
      nextRestartAt: given.restartPending ? at(90_000) : null,
      processToReplace: given.restartAsked && current !== undefined ? toIdentity(current) : null,
      spec: { ...toRow({}).spec, imageId: given.hasImage ? "sha256:1" : null },
    });
    const hasData = given.hasData || containers.length > 0;
    const runtime = { publishesHostPorts, startsOnEnsure };
    const { healthy, makesDefects, outOfMemory } = given;
    const world = { row, runtime, containers, hasData, nowMs: 60_000, processes: 10 };
    return { ...world, healthy, makesDefects, outOfMemory };
  });

const at = (ms: number) => new Date(ms).toISOString();

const toIdentity = ({ containerId, startedAt }: Container) => toProcessIdentity(containerId, startedAt);

function toContainer(
  given: Pick<Container, "incarnation" | "state" | "exitCode" | "restartCount" | "oomKilled" | "defect">,
  { index, publishesHostPorts }: { index: number; publishesHostPorts: boolean },
): Container {
  return {
    ...given,
    containerId: `container-${index}`,
    engineId: "engine",
    specHash: "hash",
    startedAt: given.state === "created" ? null : at(1_000 + index),
    endpoint: ENDPOINT,
    hostPort: publishesHostPorts ? 9_001 : null,
    keyHash: "hash",
  };
}

function toRow(changes: Partial<EngineRow>): EngineRow {
  return {
    id: "engine",
    productId: "product",
    userId: "ada",
    desired: "running",
    desiredBy: "caller",
    status: "running",
    statusReason: null,
    gate: "open",
    spec: {
      image: "reference:1",
      imageFrom: "default",
      imageId: "sha256:1",
      environmentNames: [],
      limits: { memoryMb: 1, cpus: 1, pids: 1, readOnly: false, capAdd: [], user: null },
      limitOverrides: {},
      network: "engine_net",
      enginePort: 8_000,
      catalogPath: "/catalog",
    },
    specHash: "hash",
    volumeName: "engine-data-engine",
    runtimeHost: "host",
    hostPort: 9_001,
    endpoint: ENDPOINT,
    incarnation: 1,
    containerId: null,
    processIdentity: null,
    processStartedAt: null,
    generation: 1,
    processToReplace: null,
    processBeforeBoot: null,
    stopGraceMs: null,
    keyHash: "hash",
    keySealed: "sealed",
    mac: "mac",
    endpointMac: null,
    keyPrefix: "ehe_",
    nextKeyHash: null,
    nextKeySealed: null,
    nextKeyPrefix: null,
    bootStartedAt: at(59_000),
    bootMs: null,
    firstReadyAt: null,
    healthFailures: 0,
    restarts: 0,
    restartAttempts: 0,
    nextRestartAt: null,
    nextCheckAt: at(0),
    leaseReplica: null,
    fencingToken: 1,
    lastHealthAt: null,
    lastActivityAt: null,
    createdAt: at(0),
    updatedAt: at(0),
    ...changes,
  };
}

function planNext(world: World): Step {
  const current = world.containers.find((container) => container.incarnation === world.row.incarnation);
  const answers = current?.state === "running" && current.defect === null;
  const health = !answers
    ? null
    : world.healthy
      ? ({ ready: true, uptimeMs: 1 } as const)
      : ({ ready: false, why: "not yet" } as const);
  const containers = world.containers.map((one) => ({ ...one, processIdentity: toIdentity(one) }));
  const policy = { ...POLICY, ...world.runtime, nowMs: world.nowMs };
  const { hasData, outOfMemory } = world;
  return planEngine(world.row, { containers, hasData, outOfMemory, health }, policy);
}

/** Models `applyStep`. Throws when a step would do harm. */
function apply(world: World, step: Step): void {
  const { row } = world;
  const patch = (changes: Partial<EngineRow>) => {
    world.row = { ...world.row, ...changes };
  };
  const change = (id: string, changes: Partial<Container>) => {
    world.containers = world.containers.map((one) => (one.containerId === id ? { ...one, ...changes } : one));
  };
  switch (step.do) {
    case "steady":
    case "record_healthy":
      return;
    case "record_unhealthy":
      return patch({ healthFailures: row.healthFailures + 1 });
    case "wait_for_boot":
      world.nowMs += 20_000;
      return;
    case "move":
      expect(isAllowed(step.move, row.status), `${step.move} from ${row.status}`).toBe(true);
      patch({ status: MOVES[step.move].to });
      if (step.move === "boot")
        patch({
          bootStartedAt: at(world.nowMs),
          processBeforeBoot: null,
          nextRestartAt: null,
          healthFailures: 0,
        });
      return;
    case "ready":
      expect(isAllowed("ready", row.status)).toBe(true);
      return patch({
        status: "running",
        firstReadyAt: row.firstReadyAt ?? at(world.nowMs),
        processIdentity: step.container.processIdentity,
        endpoint: step.container.endpoint,
        processToReplace: null,
        restartAttempts: 0,
      });
    case "fail": {
      expect(isAllowed("fail", row.status)).toBe(true);
      const retries = step.retry && row.firstReadyAt !== null && row.restartAttempts < 2;
      return patch({
        status: "failed",
        nextRestartAt: retries ? at(world.nowMs + 5_000) : null,
        restartAttempts: row.restartAttempts + 1,
        healthFailures: 0,
        incarnation: row.incarnation + (step.renew === true ? 1 : 0),
      });
    }
    case "renew":
      if (row.status !== "running") expect(["provisioning", "starting"]).toContain(row.status);
      return patch({
        status: row.status === "running" ? "starting" : row.status,
        bootStartedAt: at(world.nowMs),
        processBeforeBoot: null,
        incarnation: row.incarnation + 1,
      });
    case "assign_port":
      expect(world.runtime.publishesHostPorts, "only such a runtime needs a port").toBe(true);
      return patch({ hostPort: 9_002 });
    case "free_address":
      expect(world.containers, "a port is freed only when no container may use it").toEqual([]);
      return patch({ hostPort: null, endpoint: null });
    case "resolve_image":
      return patch({ spec: { ...row.spec, imageId: "sha256:1" } });
    case "create": {
      expect(row.firstReadyAt === null || world.hasData, "an engine never loses its brain").toBe(true);
      const { publishesHostPorts, startsOnEnsure } = world.runtime;
      if (startsOnEnsure) expect(world.containers, "one writer on the brain").toEqual([]);
      if (publishesHostPorts) expect(row.hostPort).not.toBeNull();
      const state = startsOnEnsure ? ("running" as const) : ("created" as const);
      const defect = world.makesDefects && state === "running" ? "no network" : null;
      const created = {
        incarnation: row.incarnation,
        state,
        exitCode: null,
        restartCount: 0,
        oomKilled: false,
        defect,
      } as const;
      const container = {
        ...toContainer(created, { index: 0, publishesHostPorts }),
        hostPort: row.hostPort,
        containerId: `made-${(world.processes += 1)}`,
      };
      world.containers = [container, ...world.containers];
      world.hasData = true;
      return;
    }
    case "start": {
      const others = world.containers.filter((one) => one.containerId !== step.container.containerId);
      expect(others, "one writer on the brain").toEqual([]);
      patch({ processBeforeBoot: step.container.processIdentity, endpoint: step.container.endpoint });
      return change(step.container.containerId, {
        state: "running",
        startedAt: at((world.processes += 1)),
        exitCode: null,
        defect: world.makesDefects ? "no network" : step.container.defect,
      });
    }
    case "unpause":
      return change(step.container.containerId, { state: "running" });
    case "stop":
      return change(step.container.containerId, { state: "exited", exitCode: 0, restartCount: 0 });
    case "remove":
      expect(["created", "exited"], "only a container that does not run is removed").toContain(
        step.container.state,
      );
      world.containers = world.containers.filter((one) => one.containerId !== step.container.containerId);
      return;
    case "remove_data":
      expect(
        row.desired === "destroyed" || row.firstReadyAt === null,
        "the brain is removed only with its engine",
      ).toBe(true);
      expect(world.containers).toEqual([]);
      world.hasData = false;
      return;
    case "leave_tombstone":
      expect(world.containers).toEqual([]);
      expect(world.hasData).toBe(false);
  }
}

/** Applies steps until a steady state, and returns the last one. */
function reconcile(world: World): Step {
  for (let steps = 0; steps < 200; steps += 1) {
    const step = planNext(world);
    apply(world, step);
    if (step.do === "steady" && world.row.status === "failed" && world.row.nextRestartAt !== null) {
      world.nowMs = Date.parse(world.row.nextRestartAt);
      continue;
    }
    if (["steady", "record_healthy", "leave_tombstone"].includes(step.do)) return step;
  }
  throw new Error(`not steady in ${world.row.status} (desired ${world.row.desired})`);
}

describe("the planner", () => {
  test("reaches the desired state from every state, and no step does harm", () => {
    fc.assert(
      fc.property(arbitraryWorld, (world) => {
        const last = reconcile(world);
        const { row, containers } = world;
        switch (row.desired) {
          case "destroyed":
            expect(last.do).toBe("leave_tombstone");
            break;
          case "stopped":
            expect(row.status).toBe("stopped");
            expect(containers.every((one) => one.state === "exited" || one.state === "created")).toBe(true);
            break;
          case "running":
          case "paused":
            expect(["running", "failed"]).toContain(row.status);
            if (row.status === "running")
              expect(containers.filter((one) => one.state === "running")).toHaveLength(1);
            else expect(row).toMatchObject({ nextRestartAt: null, hostPort: null, endpoint: null });
        }
      }),
      { numRuns: 3_000 },
    );
  });

  test("may apply each step twice: an effect whose record was lost does no harm", () => {
    fc.assert(
      fc.property(arbitraryWorld, fc.integer({ min: 0, max: 12 }), (world, steps) => {
        for (let step = 0; step < steps; step += 1) apply(world, planNext(world));
        // The record of the last step was lost, but not its effect: the next plan uses the observation.
        const before = world.row;
        apply(world, planNext(world));
        if (world.row.status === before.status)
          world.row = { ...before, processBeforeBoot: world.row.processBeforeBoot };
        expect(() => reconcile(world)).not.toThrow();
      }),
      { numRuns: 2_000 },
    );
  });

  test("ends in stopped when a caller stops the engine at any point", () => {
    fc.assert(
      fc.property(arbitraryWorld, fc.integer({ min: 0, max: 12 }), (world, steps) => {
        for (let step = 0; step < steps; step += 1) apply(world, planNext(world));
        fc.pre(world.row.desired !== "destroyed");
        world.row = { ...world.row, desired: "stopped" };
        reconcile(world);
        expect(world.row.status).toBe("stopped");
      }),
      { numRuns: 2_000 },
    );
  });
});
