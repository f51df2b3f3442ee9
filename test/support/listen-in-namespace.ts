import { spawn } from "node:child_process";
import { once } from "node:events";
import { findProgram } from "./find-program.ts";

const ip = findProgram("ip");

/** Accepts connections on every address of a network namespace, until the stack is disposed. Needs root. */
export async function listenInNamespace(
  stack: AsyncDisposableStack,
  { namespace, port }: { namespace: string; port: number },
): Promise<void> {
  const program = `require("net").createServer((s) => s.end()).listen(${port}, "0.0.0.0", () => console.log("ready"))`;
  const child = spawn(ip ?? "", ["netns", "exec", namespace, process.execPath, "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  stack.defer(async () => {
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  });
  await once(child.stdout, "data");
}
