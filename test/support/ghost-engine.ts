// An engine that leaves a ghost: a child that listens on the engine's port too, and that outlives a kill of the engine's
// process group. FIXTURE_GHOST says what the ghost has in common with its engine.
import { spawn, type StdioOptions } from "node:child_process";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";

/**
 * - `environment`: the engine's environment. Its parent is gone.
 * - `escaped`: the engine's environment. Its parent is gone, and it moved to the cgroup FIXTURE_CGROUP.
 * - `log`: the engine's log files. Its parent is gone, and its environment is empty.
 * - `parent`: the engine is its parent.
 * - `nothing`: its parent is gone, its environment is empty, and it writes no log.
 */
export type GhostKind = "environment" | "escaped" | "log" | "parent" | "nothing";

const environment = process.env;
const port = Number(environment["ENGINE_PORT"]);
const dataPath = environment["HOME"] ?? "/";

function startGhost(kind: GhostKind): void {
  const isOrphan = kind !== "parent";
  const move = `require("fs").writeFileSync(${JSON.stringify(`${environment["FIXTURE_CGROUP"]}/cgroup.procs`)}, String(process.pid));`;
  const script = `${kind === "escaped" ? move : ""} require("http").createServer((q, r) => r.end('"ghost"'))
    .listen({ port: ${port}, host: "127.0.0.1", reusePort: true })
    .on("listening", () => require("fs").writeFileSync(${JSON.stringify(`${dataPath}/ghost`)}, String(process.pid)))`;
  // The shell ends at once, so its child has no parent that leads to the engine.
  const orphaned = ["/bin/sh", "-c", '"$0" "$@" &', process.execPath, "-e", script];
  const [command = "", ...args] = isOrphan ? orphaned : [process.execPath, "-e", script];
  const stdio: StdioOptions = kind === "log" ? ["ignore", "inherit", "inherit"] : "ignore";
  const env = kind === "environment" || kind === "escaped" ? environment : {};
  spawn(command, args, { detached: true, cwd: "/", stdio, env }).unref();
}

const kind = environment["FIXTURE_GHOST"];
if (kind !== undefined) startGhost(kind as GhostKind);
writeFileSync(join(dataPath, "engine"), String(process.pid));
createServer((request, response) => {
  if (request.url === "/exit") process.exit(3);
  response.end(JSON.stringify({ status: "ok", uptime_seconds: process.uptime(), pid: process.pid }));
}).listen({ port, host: "127.0.0.1", reusePort: true });
