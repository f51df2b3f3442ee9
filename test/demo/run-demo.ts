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
  /** Everything that the demo made and that still exists. */
  leftovers: string[];
}

interface RunDemoInput {
  runtime: "docker" | "process";
  /** Called with each line and the number of lines so far. */
  onLine?: (child: ChildProcess, count: number, line: string) => void;
}

/** Runs the whole demo in its own process, with its own temporary directory. */
export async function runDemo({ runtime, onLine }: RunDemoInput): Promise<DemoRun> {
  await using temp = await openTempDir();
  const env = { ...process.env, TMPDIR: temp.path, DEMO_BACKEND: runtime, DEMO_FAST: "1" };
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
    ...(runtime === "docker" ? await listInDocker(lines) : []),
  ];
  return { code, signal, lines, leftovers };
}

/** Finds leftovers by the instance id, which the demo prints at its end. */
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
