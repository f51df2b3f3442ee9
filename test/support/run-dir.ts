import { spawn } from "node:child_process";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** The directory for all temporary files of a test run, from all its workers. */
export interface RunDir {
  readonly path: string;
  /** Removes the directory. Returns the names of the files that tests have left. */
  close(): Promise<string[]>;
}

/**
 * Creates the temporary directory of this process and of all processes that it starts later. If the run is killed, a
 * shell process removes the directory and stops the Postgres servers in it, which outlive their openers.
 */
export async function openRunDir(): Promise<RunDir> {
  const path = await mkdtemp(join(tmpdir(), "eh-run-"));
  process.env["TMPDIR"] = path;
  const reaper = spawn("/bin/sh", ["-c", reaperScript, "reaper", path], {
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  reaper.unref();
  const close = async () => {
    const left = await readdir(path);
    await rm(path, { recursive: true, force: true, maxRetries: 5 });
    reaper.stdin.end("done\n");
    return left;
  };
  return { path, close };
}

// If its input ends without the word "done", the test run was killed. Test processes may live a moment longer and
// create more files, so the removal is repeated.
const reaperScript = `
  read -r word
  [ "$word" = done ] && exit 0
  for attempt in $(seq 100); do
    for file in $(find "$1" -name postmaster.pid 2>/dev/null); do
      pid=$(head -n 1 "$file" 2>/dev/null)
      case "$(tr '\\0' ' ' < "/proc/$pid/cmdline" 2>/dev/null)" in *"$1"*) kill -QUIT "$pid" ;; esac
    done
    sleep 0.2
    rm -rf "$1" 2>/dev/null
    [ "$attempt" -gt 10 ] && [ ! -e "$1" ] && exit 0
  done
`;
