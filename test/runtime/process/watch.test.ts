import { writeFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "vitest";
import { EventHub } from "../../../server/runtime/event-hub.ts";
import { RuntimeFailure } from "../../../server/runtime/engine-runtime.ts";
import { ContainerStore, type ProcessContainer } from "../../../server/runtime/process/container-store.ts";
import { ProcessLogs } from "../../../server/runtime/process/logs.ts";
import { observeProcesses } from "../../../server/runtime/process/observe.ts";
import { ProcessWatch } from "../../../server/runtime/process/watch.ts";
import { quietLog } from "../../support/runtime-harness.ts";
import { makeSpec } from "../../support/runtime-spec.ts";
import { openTempDir, type TempDir } from "../../support/temp-dir.ts";

let dataDir: TempDir;
let store: ContainerStore;
let watch: ProcessWatch;
/** The containers whose processes survive SIGKILL, as a process does that hangs in a system call. */
let unkillable: Set<string>;

beforeEach(async () => {
  dataDir = await openTempDir();
  store = new ContainerStore({ root: dataDir.path, instanceId: "watch", passthrough: {} });
  await store.open();
  unkillable = new Set();
  const end = async ({ containerId }: ProcessContainer) => {
    if (unkillable.has(containerId))
      throw new RuntimeFailure("refused", "a process still runs after SIGKILL");
  };
  const events = new EventHub();
  watch = new ProcessWatch({ store, remains: { end }, events, logs: new ProcessLogs(), log: quietLog });
});
afterEach(async () => {
  await watch.close();
  await dataDir.close();
});

/** A container whose process has ended. */
async function makeEnded(exited?: Promise<number | undefined>): Promise<ProcessContainer> {
  const { containerId } = await store.ensure(await makeSpec());
  const container = await store.get(containerId);
  await writeFile(store.pathOf(container, "pid"), `${2 ** 30}\nanother-boot\n\n\n`);
  const engineProcess = await store.readProcess(container);
  if (engineProcess === undefined) throw new Error("the pid file is not complete");
  unkillable.add(containerId);
  watch.add(container, engineProcess, exited);
  return container;
}

test("an engine that cannot be ended is reported as running, and hides no other engine", async () => {
  const stuck = await makeEnded();
  const other = await makeEnded();
  unkillable.delete(other.containerId);
  const states = async () =>
    Object.fromEntries(
      (await observeProcesses({ store, watch })).map(({ containerId, state }) => [containerId, state]),
    );
  const expected = { [stuck.containerId]: "running", [other.containerId]: "exited" };
  expect(await states()).toEqual(expected);
  expect(await states()).toEqual(expected);
  await expect(observeProcesses({ store, watch }, stuck.spec.engineId)).rejects.toThrow("still runs");
});

test.each([
  { whose: "our own child", exited: Promise.resolve(3), exitCode: 3 },
  { whose: "a process of an earlier replica", exited: undefined, exitCode: null },
])(
  "the end of $whose is recorded once the last of its processes can be ended",
  async ({ exited, exitCode }) => {
    const container = await makeEnded(exited);
    const engineProcess = await store.readProcess(container);
    if (engineProcess === undefined) throw new Error("the container has no process");
    await expect.poll(() => watch.isEndOverdue(container, engineProcess)).toBe(true);
    expect(await store.readExit(container)).toBeUndefined();
    unkillable.delete(container.containerId);
    await expect.poll(() => store.readExit(container)).toMatchObject({ exitCode });
  },
);

test("an engine whose end nobody will tell is polled, and its end is recorded without an exit code", async () => {
  const container = await makeEnded(Promise.resolve(undefined));
  unkillable.delete(container.containerId);
  await expect.poll(() => store.readExit(container)).toMatchObject({ exitCode: null });
});
