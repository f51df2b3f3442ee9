import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

export interface TempDir extends AsyncDisposable {
  readonly path: string;
  close(): Promise<void>;
}

/** Creates a directory for one test. Closing removes it and all its files. */
export async function openTempDir(): Promise<TempDir> {
  const path = await mkdtemp(join(tmpdir(), "enginehouse-test-"));
  const close = async () => rm(path, { recursive: true, force: true, maxRetries: 5 });
  return { path, close, [Symbol.asyncDispose]: close };
}
