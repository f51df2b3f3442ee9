import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { toClientManifest } from "./client-manifest.ts";
import { readPackageFiles } from "./package-files.ts";

const ROOT = join(import.meta.dirname, "..");
const TSC = join(ROOT, "node_modules", "typescript", "bin", "tsc");
const run = promisify(execFile);

export interface ClientPackage {
  /** The unpacked package. */
  directory: string;
  /** The packed package, which npm can install. */
  tarball: string;
}

/**
 * Builds the package of the client. It has the client's JavaScript, and the declarations that the client's types import.
 *
 *     client/*.ts, server/**.ts ─ tsc ─▶ all .js and .d.ts ─ imports from client/index ─▶ <distDir>/client
 *     <distDir>/client ─ npm pack ─▶ <distDir>/*.tgz
 */
export async function buildClient(distDir: string): Promise<ClientPackage> {
  const directory = join(distDir, "client");
  await rm(directory, { recursive: true, force: true });
  const emitted = await mkdtemp(join(tmpdir(), "enginehouse-build-"));
  try {
    await run(process.execPath, [
      TSC,
      "-p",
      join(import.meta.dirname, "client.tsconfig.json"),
      "--outDir",
      emitted,
    ]);
    await writePackage(emitted, directory);
  } catch (error) {
    throw withOutput(error);
  } finally {
    await rm(emitted, { recursive: true, force: true });
  }
  return { directory, tarball: await pack(directory, distDir) };
}

async function writePackage(emitted: string, directory: string): Promise<void> {
  const { files, packages } = await readPackageFiles(emitted);
  for (const [path, text] of files) {
    const target = join(directory, path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, text);
  }
  const [root, template] = await Promise.all([
    readJson(join(ROOT, "package.json")),
    readJson(join(ROOT, "client", "package.template.json")),
  ]);
  const manifest = toClientManifest({ root, template, packages });
  await writeFile(join(directory, "package.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
  await cp(join(ROOT, "client", "README.md"), join(directory, "README.md"));
  await cp(join(ROOT, "LICENSE"), join(directory, "LICENSE"));
}

async function readJson(path: string): Promise<object> {
  return JSON.parse(await readFile(path, "utf8")) as object;
}

async function pack(directory: string, distDir: string): Promise<string> {
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", distDir], {
    cwd: directory,
  });
  return join(distDir, findFilename(JSON.parse(stdout)));
}

/** The report of npm 12 is an object with package names as keys. That of earlier versions is a list. */
function findFilename(report: unknown): string {
  const [packed] = Object.values(report as Record<string, { filename?: unknown }>);
  if (typeof packed?.filename !== "string") throw new Error("the report of `npm pack` has no file name");
  return packed.filename;
}

/** Adds the standard output, where the compiler prints its errors. */
function withOutput(error: unknown): unknown {
  if (!(error instanceof Error && "stdout" in error)) return error;
  return new Error(`${error.message}\n${String(error.stdout)}`, { cause: error });
}
