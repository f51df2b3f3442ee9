import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { open, stat } from "node:fs/promises";
import { createGunzip } from "node:zlib";

const CUSTOM_FORMAT = "PGDMP";
const TAR_MAGIC_AT = 257;
const GZIP = Buffer.from([0x1f, 0x8b]);

/**
 * The SQL text of a dump: plain, compressed with gzip, or in a format of pg_dump that only `pg_restore` reads. `-` is
 * the standard input, with plain text.
 *
 * @throws if the dump cannot be read to its end.
 */
export async function* openDump(path: string): AsyncGenerator<Buffer> {
  if (path === "-") {
    yield* process.stdin as AsyncIterable<Buffer>;
    return;
  }
  switch (await findFormat(path)) {
    case "plain":
      yield* createReadStream(path) as AsyncIterable<Buffer>;
      return;
    case "gzip":
      yield* createReadStream(path).pipe(createGunzip()) as AsyncIterable<Buffer>;
      return;
    case "archive":
      yield* restore(path);
  }
}

async function findFormat(path: string): Promise<"plain" | "gzip" | "archive"> {
  if ((await stat(path)).isDirectory()) return "archive";
  await using file = await open(path);
  const start = Buffer.alloc(TAR_MAGIC_AT + 5);
  const { bytesRead } = await file.read(start, 0, start.length, 0);
  const head = start.subarray(0, bytesRead);
  if (head.subarray(0, 2).equals(GZIP)) return "gzip";
  const isArchive =
    head.toString("latin1").startsWith(CUSTOM_FORMAT) || head.toString("latin1", TAR_MAGIC_AT) === "ustar";
  return isArchive ? "archive" : "plain";
}

async function* restore(path: string): AsyncGenerator<Buffer> {
  const child = spawn("pg_restore", ["--data-only", "--file=-", path], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit").catch((cause: unknown) => {
    throw new Error(
      `${path} is an archive of pg_dump, and pg_restore cannot be started: install it, or dump as plain text`,
      {
        cause,
      },
    );
  });
  exited.catch(() => {
    // Awaited below, once the output has ended.
  });
  yield* child.stdout as AsyncIterable<Buffer>;
  const [code] = (await exited) as [number | null];
  if (code !== 0) throw new Error(`pg_restore failed with exit code ${code} on ${path}`);
}
