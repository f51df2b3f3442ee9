import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Log } from "../../log.ts";
import { openDockerClient } from "./client.ts";
import { buildNodeImage } from "./node-image.ts";

export interface ReferenceImageOptions {
  /** `unix:///path` or `tcp://host:port`. undefined: the default socket. */
  dockerHost?: string | undefined;
  log: Pick<Log, "info">;
  /** The repository part of the tag. */
  name?: string;
}

const ENGINE_DIR = join(import.meta.dirname, "..", "..", "..", "engine");
const CALL_TIMEOUT_MS = 30_000;

/** Builds the reference engine's image, unless the daemon has it. Needs no registry. Returns the tag. */
export async function buildReferenceImage(options: ReferenceImageOptions): Promise<string> {
  using client = await openDockerClient({ dockerHost: options.dockerHost, callTimeoutMs: CALL_TIMEOUT_MS });
  const startedAt = performance.now();
  const files = await readEngineSources();
  const name = options.name ?? "enginehouse-reference";
  const image = await buildNodeImage(client, { name, files, entry: "/engine/main.ts" });
  const tookMs = Math.round(performance.now() - startedAt);
  options.log.info({ image, tookMs }, "the reference image is ready");
  return image;
}

async function readEngineSources(): Promise<Map<string, Buffer>> {
  const names = await readdir(ENGINE_DIR, { recursive: true });
  const files = new Map<string, Buffer>();
  for (const name of names.filter((path) => path.endsWith(".ts"))) {
    files.set(`/engine/${name}`, await readFile(join(ENGINE_DIR, name)));
  }
  // Without it, Node would have to detect for each file that it is a module.
  files.set("/engine/package.json", Buffer.from('{"type":"module"}'));
  return files;
}
