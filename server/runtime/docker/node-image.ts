import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { realpath, stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { promisify } from "node:util";
import type { Pack } from "tar-stream";
import { pack } from "tar-stream";
import type { DockerClient } from "./client.ts";
import { toDockerFailure, unlessStatus } from "./failure.ts";
import { RuntimeFailure } from "../engine-runtime.ts";
import { readJsonLines } from "./json-lines.ts";

/** Neither root nor anybody else on the host. */
const USER = "10001:10001";
/** A build that shows no progress for so long is given up. */
const SILENCE_MS = 60_000;
const NODE_PATH = "/usr/local/bin/node";

export interface NodeImageInput {
  /** The repository part of the tag; the other part is the hash of what is in the image. */
  name: string;
  /** Sources by their absolute path in the image. */
  files: ReadonlyMap<string, Buffer>;
  /** Which of them is started. */
  entry: string;
}

/**
 * An image of the Node that runs this and some sources, made without any registry: from scratch, with the
 * binary and the libraries that it is linked to.
 *
 * @returns the tag; an image that has it already is not built again.
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

/** A fresh named volume takes content and owner of what the image has at its place, hence the empty folder. */
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

/** The node binary and all that the loader would load for it: path in the image → path here. */
async function listSystemFiles(execPath: string): Promise<Map<string, string>> {
  if (process.platform !== "linux") {
    throw new RuntimeFailure("refused", "an image of this Node can only be built on Linux");
  }
  const node = await realpath(execPath);
  const { stdout } = await promisify(execFile)("ldd", [node]).catch((error: unknown) => {
    throw new RuntimeFailure("refused", "ldd does not say what the node binary is linked to", error);
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
  // The binary is larger than what should be in memory, and the daemon reads as fast as it likes.
  for await (const chunk of createReadStream(source)) {
    if (!entry.write(chunk)) await once(entry, "drain");
  }
  entry.end(null);
}

/** By the classic builder, which takes one tar and needs no session. Its failures come in-band. */
async function build(
  client: DockerClient,
  tag: string,
  fill: (context: Pack) => Promise<void>,
): Promise<void> {
  const context = pack();
  const cut = new AbortController();
  const silence = setTimeout(() => cut.abort(), SILENCE_MS);
  const onProgress = () => silence.refresh();
  const body = Readable.from(watchChunks(context, onProgress));
  try {
    const options = { t: tag, version: "1", rm: true, forcerm: true, abortSignal: cut.signal } as const;
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
