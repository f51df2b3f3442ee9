// The engine of the runtimes' tests. It also runs in containers, so it imports only Node's modules.
import { spawn } from "node:child_process";
import { readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { connect } from "node:net";
import { dirname, join } from "node:path";

const environment = process.env;
if (environment["FIXTURE_EXIT_CODE"] !== undefined) process.exit(Number(environment["FIXTURE_EXIT_CODE"]));

const ignoresSigterm = environment["FIXTURE_IGNORE_SIGTERM"] === "1";
process.on("SIGTERM", () => {
  if (ignoresSigterm) return;
  console.log("got SIGTERM");
  process.exit(0);
});

// A member of the process group that ignores SIGTERM.
const child =
  environment["FIXTURE_CHILD"] === "1"
    ? spawn(process.execPath, ["-e", "process.on('SIGTERM', () => {}); setInterval(() => {}, 1e6)"])
    : undefined;

const dataPath = dirname(environment["SQLITE_DB_PATH"] ?? "/data/brain.sqlite");
const catalogPath = environment["CATALOG_DIR"] ?? "/catalog";

type Answer = (query: URLSearchParams) => unknown;
const ROUTES: Readonly<Record<string, Answer>> = {
  "/health": () => ({ status: "ok", uptime_seconds: process.uptime(), subsystems: {} }),
  "/about": () => ({
    pid: process.pid,
    childPid: child?.pid,
    cwd: process.cwd(),
    uid: process.getuid?.(),
    environment: { ...environment },
    status: orNull(() => readFileSync("/proc/self/status", "utf8")),
    mounts: orNull(() => readFileSync("/proc/self/mounts", "utf8")),
    limits: orNull(() => readFileSync("/proc/self/limits", "utf8")),
    init: orNull(() => readFileSync("/proc/1/cmdline", "utf8")),
    dataOwner: statSync(dataPath).uid,
    catalog: orNull(() => readdirSync(catalogPath)),
  }),
  "/write": (query) => tryTo(() => writeFileSync(query.get("path") ?? "", query.get("text") ?? "")),
  "/read": () => orNull(() => readFileSync(join(dataPath, "note"), "utf8")),
  "/note": (query) => tryTo(() => writeFileSync(join(dataPath, "note"), query.get("text") ?? "")),
  "/log": (query) => tryTo(() => logLines(Number(query.get("count")), Number(query.get("length")))),
  "/fill": (query) =>
    tryTo(() =>
      writeFileSync(query.get("path") ?? "", Buffer.alloc(Number(query.get("megabytes")) * 2 ** 20, 1)),
    ),
  "/exit": (query) => setTimeout(() => process.exit(Number(query.get("code"))), 5).hasRef(),
};

createServer((request, response) => {
  const url = new URL(request.url ?? "/", "http://localhost");
  if (url.pathname === "/connect") {
    const socket = connect({
      host: url.searchParams.get("host") ?? "",
      port: Number(url.searchParams.get("port")),
    });
    const answer = (reached: boolean) => {
      socket.destroy();
      response.end(JSON.stringify(reached));
    };
    socket.setTimeout(1_500, () => answer(false));
    socket.once("connect", () => answer(true));
    socket.once("error", () => answer(false));
    return;
  }
  const route = ROUTES[url.pathname];
  response.writeHead(route === undefined ? 404 : 200, { "content-type": "application/json" });
  response.end(JSON.stringify(route?.(url.searchParams) ?? null));
}).listen(Number(environment["ENGINE_PORT"] ?? 8000), environment["ENGINE_HOST"] ?? "0.0.0.0", () => {
  console.error("the fixture warns");
  console.log(`listening on ${environment["ENGINE_PORT"] ?? 8000}`);
});

function orNull<T>(read: () => T): T | null {
  try {
    return read();
  } catch {
    // This system has no such file.
    return null;
  }
}

/** "ok", or the error's code. */
function tryTo(act: () => void): string {
  try {
    act();
    return "ok";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
}

function logLines(count: number, length: number): void {
  for (let number = 1; number <= count; number += 1) console.log(`${number}:${"x".repeat(length)}`);
}
