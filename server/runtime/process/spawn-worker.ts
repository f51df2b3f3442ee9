import { spawn, type ChildProcess } from "node:child_process";
import { constants } from "node:os";
import { parentPort, type MessagePort } from "node:worker_threads";
import { toErrorMessage } from "../../errors.ts";
import type { SpawnAnswer, SpawnRequest } from "./spawner.ts";

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
    const { args, environment, stdout, stderr } = request;
    const child = spawn("/bin/sh", args, {
      detached: true,
      env: environment,
      stdio: ["ignore", stdout, stderr],
    });
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

if (parentPort) serveSpawns(parentPort);
