import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { userInfo } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { takePort } from "../support/ports.ts";
import { openTempDir } from "../support/temp-dir.ts";

export interface Nginx extends AsyncDisposable {
  readonly url: string;
  /** Breaks all connections, and starts again at the same address. */
  restart(): Promise<void>;
}

export interface NginxInput {
  /** The path of the program. */
  program: string;
  /** Where requests go. */
  target: string;
  /** Directives beside `proxy_pass`. */
  directives?: string;
}

/** An nginx of its own, which is a proxy in its default configuration. */
export async function openNginx({ program, target, directives = "" }: NginxInput): Promise<Nginx> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await openTempDir());
  const port = await takePort();
  const config = join(path, "nginx.conf");
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  await mkdir(join(path, "tmp"));
  await writeFile(
    config,
    [
      // A master that is root would give its workers to a user who cannot use the folder.
      ...(userInfo().uid === 0 ? ["user root;"] : []),
      "daemon off;",
      "worker_processes 1;",
      `pid ${join(path, "nginx.pid")};`,
      "error_log stderr error;",
      "events {}",
      "http {",
      "access_log off;",
      ...temporary.map((name) => `${name}_temp_path ${join(path, "tmp", name)};`),
      `server { listen 127.0.0.1:${port}; location / { proxy_pass ${target}; ${directives} } }`,
      "}",
    ].join("\n"),
  );
  let child: ChildProcess | undefined;
  const start = async () => {
    const started = spawn(program, ["-c", config, "-p", path], { stdio: ["ignore", "ignore", "inherit"] });
    child = started;
    await expect.poll(async () => isListening(port)).toBe(true);
  };
  const stop = async () => {
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    await exited;
  };
  stack.defer(stop);
  await start();
  const opened = stack.move();
  return {
    url: `http://127.0.0.1:${port}`,
    restart: async () => {
      await stop();
      await start();
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

async function isListening(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
