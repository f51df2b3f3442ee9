import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { EngineRow } from "../../../db/engines.ts";
import { DESIRED_STATES, ENGINE_STATUSES } from "../../../server/engines/model/engine-status.ts";
import { planEngine, type Step } from "../../../server/engines/reconcile/plan-engine.ts";
import { isAllowed, MOVES } from "../../../server/engines/model/moves.ts";
import { toProcessIdentity, type ContainerObservation } from "../../../server/runtime/engine-runtime.ts";

/*
 * A little world that carries out what the planner says: rows as the loop records them, containers as a daemon
 * has them. Whatever state it begins in, and whatever happens in between, it has to come to rest where the row wants.
 */

const POLICY = {
  countsFailures: true,
  bootTimeoutMs: 60_000,
  healthIntervalMs: 30_000,
  healthMaxFailures: 3,
  restartMaxAttempts: 8,
};

interface World {
  row: EngineRow;
  containers: ContainerObservation[];
  hasData: boolean;
  nowMs: number;
  processes: number;
  /** What the engine answers once it runs. */
  healthy: boolean;
}

const STATES = ["created", "running", "paused", "restarting", "exited"] as const;

const arbitraryContainer = fc.record({
  incarnation: fc.integer({ min: 1, max: 3 }),
  state: fc.constantFrom(...STATES),
  exitCode: fc.constantFrom(null, 0, 1),
  restartCount: fc.integer({ min: 0, max: 4 }),
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
  })
  .map((given): World => {
    const containers = given.containers
      .filter((container) => container.incarnation <= given.incarnation)
      .map((container, index) => toContainer(container, index))
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
      hostPort: given.hasPort || containers.length > 0 ? 9_001 : null,
      firstReadyAt: given.wasReady ? at(0) : null,
      nextRestartAt: given.restartPending ? at(90_000) : null,
      processToReplace: given.restartAsked && current !== undefined ? toProcessIdentity(current) : null,
      spec: { ...toRow({}).spec, imageId: given.hasImage ? "sha256:1" : null },
    });
    const hasData = given.hasData || containers.length > 0;
    return { row, containers, hasData, nowMs: 60_000, processes: 10, healthy: given.healthy };
  });

const at = (ms: number) => new Date(ms).toISOString();

function toContainer(
  given: Pick<ContainerObservation, "incarnation" | "state" | "exitCode" | "restartCount">,
  index: number,
): ContainerObservation {
  return {
    ...given,
    containerId: `container-${index}`,
    engineId: "engine",
    specHash: "hash",
    startedAt: given.state === "created" ? null : at(1_000 + index),
    oomKilled: false,
    hostPort: 9_001,
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
    incarnation: 1,
    containerId: null,
    processIdentity: null,
    generation: 1,
    processToReplace: null,
    processBeforeBoot: null,
    stopGraceMs: null,
    keyHash: "hash",
    keySealed: "sealed",
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

function look(world: World): Step {
  const current = world.containers.find((container) => container.incarnation === world.row.incarnation);
  const answers = current?.state === "running";
  const health = !answers
    ? null
    : world.healthy
      ? ({ ready: true, uptimeMs: 1 } as const)
      : ({ ready: false, why: "not yet" } as const);
  const { containers, hasData } = world;
  return planEngine(world.row, { containers, hasData, health }, { ...POLICY, nowMs: world.nowMs });
}

/** What the loop does for a step, in one line each; throws where a step would do harm. */
function apply(world: World, step: Step): void {
  const { row } = world;
  const patch = (changes: Partial<EngineRow>) => {
    world.row = { ...world.row, ...changes };
  };
  const change = (id: string, changes: Partial<ContainerObservation>) => {
    world.containers = world.containers.map((one) => (one.containerId === id ? { ...one, ...changes } : one));
  };
  switch (step.do) {
    case "settled":
    case "record_healthy":
      return;
    case "record_unhealthy":
      return patch({ healthFailures: row.healthFailures + 1 });
    case "wait":
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
        processIdentity: toProcessIdentity(step.container),
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
      });
    }
    case "assign_port":
      return patch({ hostPort: 9_002 });
    case "free_port":
      expect(world.containers, "a port is given back only when no container may use it").toEqual([]);
      return patch({ hostPort: null });
    case "resolve_image":
      return patch({ spec: { ...row.spec, imageId: "sha256:1" } });
    case "create": {
      expect(row.firstReadyAt === null || world.hasData, "a brain is never made again empty").toBe(true);
      const made = toContainer(
        { incarnation: row.incarnation, state: "created", exitCode: null, restartCount: 0 },
        0,
      );
      world.containers = [
        { ...made, hostPort: row.hostPort ?? 0, containerId: `made-${(world.processes += 1)}` },
        ...world.containers,
      ];
      world.hasData = true;
      return;
    }
    case "start": {
      const others = world.containers.filter((one) => one.containerId !== step.container.containerId);
      expect(others, "one writer on the brain").toEqual([]);
      patch({ processBeforeBoot: toProcessIdentity(step.container) });
      return change(step.container.containerId, {
        state: "running",
        startedAt: at((world.processes += 1)),
        exitCode: null,
      });
    }
    case "unpause":
      return change(step.container.containerId, { state: "running" });
    case "stop":
      return change(step.container.containerId, { state: "exited", exitCode: 0, restartCount: 0 });
    case "remove":
      expect(["created", "exited"], "only what is stopped is removed").toContain(step.container.state);
      world.containers = world.containers.filter((one) => one.containerId !== step.container.containerId);
      return;
    case "remove_data":
      expect(
        row.desired === "destroyed" || row.firstReadyAt === null,
        "a brain goes only with its engine",
      ).toBe(true);
      expect(world.containers).toEqual([]);
      world.hasData = false;
      return;
    case "bury":
      expect(world.containers).toEqual([]);
      expect(world.hasData).toBe(false);
  }
}

/** The step that it came to rest with. */
function settle(world: World): Step {
  for (let steps = 0; steps < 200; steps += 1) {
    const step = look(world);
    apply(world, step);
    if (step.do === "settled" && world.row.status === "failed" && world.row.nextRestartAt !== null) {
      world.nowMs = Date.parse(world.row.nextRestartAt);
      continue;
    }
    if (["settled", "record_healthy", "bury"].includes(step.do)) return step;
  }
  throw new Error(`no rest in ${world.row.status} (wanted ${world.row.desired})`);
}

describe("the planner", () => {
  test("comes to rest where the row wants, from every state, and does no harm on the way", () => {
    fc.assert(
      fc.property(arbitraryWorld, (world) => {
        const last = settle(world);
        const { row, containers } = world;
        switch (row.desired) {
          case "destroyed":
            expect(last.do).toBe("bury");
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
            else expect(row.nextRestartAt).toBeNull();
        }
      }),
      { numRuns: 3_000 },
    );
  });

  test("doing its step twice is as good as once", () => {
    fc.assert(
      fc.property(arbitraryWorld, fc.integer({ min: 0, max: 12 }), (world, steps) => {
        for (let step = 0; step < steps; step += 1) apply(world, look(world));
        // The record of the last step was lost, its effect was not: the plan goes on from what is seen.
        const before = world.row;
        apply(world, look(world));
        if (world.row.status === before.status)
          world.row = { ...before, processBeforeBoot: world.row.processBeforeBoot };
        expect(() => settle(world)).not.toThrow();
      }),
      { numRuns: 2_000 },
    );
  });

  test("an engine that is stopped by hand in the middle of anything ends stopped", () => {
    fc.assert(
      fc.property(arbitraryWorld, fc.integer({ min: 0, max: 12 }), (world, steps) => {
        for (let step = 0; step < steps; step += 1) apply(world, look(world));
        fc.pre(world.row.desired !== "destroyed");
        world.row = { ...world.row, desired: "stopped" };
        settle(world);
        expect(world.row.status).toBe("stopped");
      }),
      { numRuns: 2_000 },
    );
  });
});
