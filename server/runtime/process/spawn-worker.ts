import { spawn, type ChildProcess } from "node:child_process";
import { constants } from "node:os";
import { parentPort, type MessagePort } from "node:worker_threads";
import { toErrorMessage } from "../../errors.ts";
import type { SpawnAnswer, SpawnOptions, SpawnRequest } from "./spawner.ts";

/** The program of the thread of `Spawner`. Children have a session of their own and outlive this thread. */
function serveSpawns(port: MessagePort): void {
  const children = new Map<number, ChildProcess>();
  const answer = (message: SpawnAnswer) => port.postMessage(message);
  port.on("message", (request: SpawnRequest) => {
    const { id } = request;
    if (request.kind === "kill") {
      children.get(id)?.kill("SIGKILL");
      return;
    }
    let child: ChildProcess;
    try {
      child = start(request);
    } catch (error) {
      // Some errors, such as an environment that is too large, come at once. They must not end this thread.
      answer({ kind: "failed", id, why: toErrorMessage(error) });
      return;
    }
    children.set(id, child);
    child.once("spawn", () => answer({ kind: "spawned", id }));
    child.once("error", (error) => {
      children.delete(id);
      answer({ kind: "failed", id, why: toErrorMessage(error) });
    });
    child.once("exit", (code, signal) => {
      children.delete(id);
      answer({ kind: "exited", id, code: code ?? 128 + (signal ? constants.signals[signal] : 0) });
    });
  });
}

function start({ args, environment, stdout, stderr }: SpawnOptions): ChildProcess {
  return spawn("/bin/sh", args, { detached: true, env: environment, stdio: ["ignore", stdout, stderr] });
}

if (parentPort) serveSpawns(parentPort);
