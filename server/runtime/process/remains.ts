import { setTimeout as sleep } from "node:timers/promises";
import { RuntimeFailure } from "../engine-runtime.ts";
import { endCgroup, toCgroupPath } from "./cgroup.ts";
import type { ContainerStore, ProcessContainer } from "./container-store.ts";
import { isSameBoot, mayLeadGroup, type EngineProcess } from "./engine-process.ts";
import { killOne, signalGroup } from "./process-group.ts";
import type { ProcessScan, ScannedProcess } from "./process-scan.ts";
import { findProcess, type ProcessRow } from "./process-table.ts";

const POLL_MS = 15;
/** The kernel ends a killed process within milliseconds, unless the process hangs in a system call. */
const KILL_TIMEOUT_MS = 5_000;

type RemainsStore = Pick<ContainerStore, "nameOf" | "readProcess">;

export interface EngineRemainsOptions {
  store: RemainsStore;
  scan: ProcessScan;
  /** See `ProcessContext`. */
  cgroupParent: string | undefined;
}

/**
 * Finds and ends everything that the start of a container has left: its process group, and processes that left the
 * group. The cgroup of the start, if it has one, holds all processes that did not leave it. Engines have our user, so a
 * process may move to another cgroup. Such a process, and every process without a cgroup, is found by what it has in
 * common with its container; see `toMembers`.
 */
export class EngineRemains {
  readonly #store: RemainsStore;
  readonly #scan: ProcessScan;
  readonly #cgroupParent: string | undefined;

  constructor({ store, scan, cgroupParent }: EngineRemainsOptions) {
    this.#store = store;
    this.#scan = scan;
    this.#cgroupParent = cgroupParent;
  }

  /**
   * Everything that the start has left and that runs. Descendants are known only as long as their parents run. So `end`
   * finds more if it gets the members from before the engine's exit.
   */
  async listMembers(container: ProcessContainer, engineProcess: EngineProcess): Promise<ProcessRow[]> {
    return this.#findMembers(container, engineProcess, []);
  }

  /** Kills all of it, and returns when nothing is left. `known`: earlier members. */
  async end(
    container: ProcessContainer,
    engineProcess: EngineProcess,
    known: readonly ProcessRow[] = [],
  ): Promise<void> {
    if (!isSameBoot(engineProcess)) return;
    const cgroup = toCgroupPath(this.#cgroupParent, container.containerId, engineProcess.token);
    if (cgroup !== undefined && !(await endCgroup(cgroup, KILL_TIMEOUT_MS))) throw toStillRuns(engineProcess);
    await this.#killAll(engineProcess, (found) =>
      this.#findMembers(container, engineProcess, [...known, ...found]),
    );
  }

  /** Kills the process group only: for a child that may not have become the container's process. */
  async endGroup(engineProcess: EngineProcess): Promise<void> {
    await this.#killAll(engineProcess, async () => toMembers(await this.#scan.list(), { engineProcess }));
  }

  async #killAll(
    engineProcess: EngineProcess,
    find: (found: readonly ProcessRow[]) => Promise<ProcessRow[]>,
  ): Promise<void> {
    const deadline = performance.now() + KILL_TIMEOUT_MS;
    let members = await find([]);
    while (members.length > 0) {
      if (performance.now() >= deadline) throw toStillRuns(engineProcess);
      if (mayLeadGroup(engineProcess, await findProcess(engineProcess.pid))) {
        signalGroup(engineProcess, "SIGKILL");
      }
      for (const { pid } of members) killOne(pid);
      await sleep(POLL_MS);
      members = await find(members);
    }
  }

  async #findMembers(
    container: ProcessContainer,
    engineProcess: EngineProcess,
    known: readonly ProcessRow[],
  ): Promise<ProcessRow[]> {
    const processes = await this.#scan.list();
    // This check comes after the scan. So the scan shows no process of a later start of the container.
    const name = (await this.#isLatest(container, engineProcess)) ? this.#store.nameOf(container) : undefined;
    return toMembers(processes, { engineProcess, name, known });
  }

  /** A later start removes the pid file before it creates its process. */
  async #isLatest(container: ProcessContainer, engineProcess: EngineProcess): Promise<boolean> {
    return (await this.#store.readProcess(container))?.startedAt === engineProcess.startedAt;
  }
}

export interface MemberSearch {
  engineProcess: EngineProcess;
  /** The container's name. undefined: the container was started again, so its name says nothing. */
  name?: string | undefined;
  known?: readonly ProcessRow[];
}

/**
 * The processes that belong to one start of a container: its process group and session, processes with the container's
 * mark, those that are `known`, and all descendants of these. Never this process, its ancestors, or what descends from
 * them only. A descendant with another container's mark belongs to that container.
 */
export function toMembers(
  processes: readonly ScannedProcess[],
  { engineProcess, name, known = [] }: MemberSearch,
): ScannedProcess[] {
  const { pid } = engineProcess;
  const leader = processes.find((row) => row.pid === pid);
  const hasGroup = mayLeadGroup(engineProcess, leader);
  const knownStarts = new Set(known.map(toStart));
  const isMember = (row: ScannedProcess) =>
    (hasGroup && (row.groupId === pid || row.sessionId === pid)) ||
    (name !== undefined && row.containerName === name) ||
    knownStarts.has(toStart(row));
  const own = findOwnLine(processes);
  const members = new Set(processes.filter((row) => isMember(row) && !own.has(row.pid)));
  const childrenOf = Map.groupBy(processes, ({ parentId }) => parentId);
  // A set visits what is added during the loop.
  for (const member of members) {
    for (const child of childrenOf.get(member.pid) ?? []) {
      const isOfOther = child.containerName !== undefined && child.containerName !== name;
      if (!isOfOther && !own.has(child.pid)) members.add(child);
    }
  }
  return [...members];
}

/** The pids of this process and of its ancestors. */
function findOwnLine(processes: readonly ProcessRow[]): Set<number> {
  const parents = new Map(processes.map(({ pid, parentId }) => [pid, parentId]));
  const own = new Set([process.pid, process.ppid]);
  // A set visits what is added during the loop.
  for (const pid of own) {
    const parentId = parents.get(pid);
    if (parentId !== undefined) own.add(parentId);
  }
  return own;
}

/** The same for the same process only, because a later process with its pid has another start. */
function toStart({ pid, startTicks, startedAtMs }: ProcessRow): string {
  return `${pid}@${startTicks ?? startedAtMs}`;
}

function toStillRuns({ pid }: EngineProcess): RuntimeFailure {
  const message = `processes of the engine with pid ${pid} still run ${KILL_TIMEOUT_MS} ms after SIGKILL`;
  return new RuntimeFailure("refused", message);
}
