import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import { pack, type Pack } from "tar-stream";
import type { DockerClient } from "./client.ts";
import { toDockerFailure, unlessStatus } from "./failure.ts";
import { RuntimeFailure } from "../engine-runtime.ts";
import { readJsonLines } from "./json-lines.ts";

/** An id that no user of the host is likely to have. */
const USER = "10001:10001";
/** A build without progress for this long is aborted. */
const SILENCE_MS = 60_000;
const NODE_PATH = "/usr/local/bin/node";

export interface NodeImageInput {
  /** The repository part of the tag. The rest of the tag is the hash of the image's content. */
  name: string;
  /** Source files by their absolute path in the image. */
  files: ReadonlyMap<string, Buffer>;
  /** The path of the source file that the image starts. */
  entry: string;
}

/**
 * Builds an image of this process's Node binary, the libraries that it is linked to, and some source files. Needs no
 * registry. Does nothing if the image exists.
 *
 * @returns the image's tag.
 */
export async function buildNodeImage(client: DockerClient, input: NodeImageInput): Promise<string> {
  const system = await listSystemFiles(process.execPath);
  const dockerfile = toDockerfile(input.entry);
  const tag = `${input.name}:${await hashContents(system, input.files, dockerfile)}`;
  const present = await client.call((docker) => docker.getImage(tag).inspect().catch(unlessStatus(404)));
  if (present !== undefined) return tag;
  await build(client, tag, async (context) => {
    context.entry({ name: "Dockerfile" }, dockerfile);
    context.entry({ name: "empty", type: "directory" });
    for (const [path, content] of input.files) context.entry({ name: `root${path}` }, content);
    for (const [path, source] of system) await addFile(context, `root${path}`, source);
    context.finalize();
  });
  return tag;
}

/** The empty folder /data has the engine's user as owner. A new named volume takes its owner from that folder. */
function toDockerfile(entry: string): string {
  return [
    "FROM scratch",
    "COPY root/ /",
    `COPY --chown=${USER} empty/ /data/`,
    "ENV PATH=/usr/local/bin HOME=/data LANG=C.UTF-8",
    `USER ${USER}`,
    "WORKDIR /data",
    "EXPOSE 8000",
    `ENTRYPOINT ${JSON.stringify([NODE_PATH, entry])}`,
    "",
  ].join("\n");
}

/** The node binary and the libraries that it is linked to: path in the image → path on this machine. */
async function listSystemFiles(execPath: string): Promise<Map<string, string>> {
  if (process.platform !== "linux") {
    const message = "an image of this Node can only be built on Linux: set ORCH_ENGINE_IMAGE";
    throw new RuntimeFailure("refused", message);
  }
  const node = await realpath(execPath);
  const { stdout } = await promisify(execFile)("ldd", [node]).catch((error: unknown) => {
    throw new RuntimeFailure("refused", "ldd cannot list the libraries of the node binary", error);
  });
  const files = new Map([[NODE_PATH, node]]);
  // "libm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x…)", and the loader: "/lib64/ld-linux-x86-64.so.2 (0x…)"
  for (const [, path] of stdout.matchAll(/(?:^|\s)(\/\S+) \(0x/g)) {
    if (path !== undefined) files.set(path, await realpath(path));
  }
  return files;
}

async function hashContents(
  system: ReadonlyMap<string, string>,
  files: ReadonlyMap<string, Buffer>,
  dockerfile: string,
): Promise<string> {
  const hash = createHash("sha256").update(dockerfile);
  for (const [path, content] of [...files].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(`\0${path}\0`).update(content);
  }
  for (const [path, source] of system) {
    hash.update(`\0${path}\0`);
    for await (const chunk of createReadStream(source)) hash.update(chunk as Buffer);
  }
  return hash.digest("hex").slice(0, 12);
}

async function addFile(context: Pack, name: string, source: string): Promise<void> {
  const { size } = await stat(source);
  const entry = context.entry({ name, size, mode: 0o755 });
  // Streamed, because the node binary is too large to keep in memory.
  for await (const chunk of createReadStream(source)) {
    if (!entry.write(chunk)) await once(entry, "drain");
  }
  entry.end(null);
}

/** Uses the classic builder, which takes one tar and needs no session. It reports failures inside its output. */
async function build(
  client: DockerClient,
  tag: string,
  fill: (context: Pack) => Promise<void>,
): Promise<void> {
  const context = pack();
  const limit = new AbortController();
  const silence = setTimeout(() => limit.abort(), SILENCE_MS);
  const onProgress = () => silence.refresh();
  const body = Readable.from(watchChunks(context, onProgress));
  try {
    const options = { t: tag, version: "1", rm: true, forcerm: true, abortSignal: limit.signal } as const;
    const [stream] = await Promise.all([client.docker.buildImage(body, options), fill(context)]);
    for await (const line of readJsonLines(stream)) {
      onProgress();
      if (typeof line["error"] === "string") throw new RuntimeFailure("refused", line["error"]);
    }
  } catch (error) {
    throw toDockerFailure(error);
  } finally {
    clearTimeout(silence);
    body.destroy();
    context.destroy();
  }
}

async function* watchChunks(context: Pack, onProgress: () => void): AsyncGenerator<Buffer, void, undefined> {
  for await (const chunk of context) {
    onProgress();
    yield chunk as Buffer;
  }
}
