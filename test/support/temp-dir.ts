import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TempDir extends AsyncDisposable {
  readonly path: string;
  close(): Promise<void>;
}

/** A directory of the test's own, gone with everything in it when closed. */
export async function openTempDir(): Promise<TempDir> {
  const path = await mkdtemp(join(tmpdir(), "enginehouse-test-"));
  const close = async () => rm(path, { recursive: true, force: true, maxRetries: 5 });
  return { path, close, [Symbol.asyncDispose]: close };
}
