import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readdir } from "node:fs/promises";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { listProcessesOf } from "../../demo/processes-of.ts";
import { openDockerClient } from "../../server/runtime/docker/client.ts";
import { openTempDir } from "../support/temp-dir.ts";

const ENTRY = fileURLToPath(new URL("../../demo/main.ts", import.meta.url));

export interface DemoRun {
  code: number | null;
  signal: NodeJS.Signals | null;
  lines: string[];
  /** What is there that was not there before it. */
  leftovers: string[];
}

interface RunDemoInput {
  backend: "docker" | "process";
  /** Called with each line and how many there were, this one included. */
  onLine?: (child: ChildProcess, count: number, line: string) => void;
}

/** The whole demo in a process of its own, with a place of its own for what is temporary. */
export async function runDemo({ backend, onLine }: RunDemoInput): Promise<DemoRun> {
  await using temp = await openTempDir();
  const env = { ...process.env, TMPDIR: temp.path, DEMO_BACKEND: backend, DEMO_FAST: "1" };
  const child = spawn(process.execPath, [ENTRY], { env, stdio: ["ignore", "pipe", "pipe"] });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on("line", (line) => {
      lines.push(line);
      onLine?.(child, lines.length, line);
    });
  }
  const [code, signal] = (await once(child, "close")) as [number | null, NodeJS.Signals | null];
  const processes = await listProcessesOf(temp.path);
  const files = await readdir(temp.path);
  const leftovers = [
    ...processes.map(({ pid, command }) => `process ${pid} ${command}`),
    ...files.map((file) => `file ${file}`),
    ...(backend === "docker" ? await listInDocker(lines) : []),
  ];
  return { code, signal, lines, leftovers };
}

/** The demo says whose containers it has had. */
async function listInDocker(lines: readonly string[]): Promise<string[]> {
  const instanceId = /of instance (\S+)\)/.exec(lines.join("\n"))?.[1];
  if (instanceId === undefined) return [];
  using client = await openDockerClient({ dockerHost: process.env["DOCKER_HOST"], callTimeoutMs: 10_000 });
  const { docker } = client;
  const filters = { label: [`enginehouse.instance=${instanceId}`] };
  const { Volumes } = await docker.listVolumes({ filters });
  const { Volumes: markers } = await docker.listVolumes({ filters: { name: [instanceId] } });
  return [
    ...(await docker.listContainers({ all: true, filters })).map(({ Id }) => `container ${Id}`),
    ...(await docker.listNetworks({ filters })).map(({ Name }) => `network ${Name}`),
    ...[...Volumes, ...markers].map(({ Name }) => `volume ${Name}`),
  ];
}
