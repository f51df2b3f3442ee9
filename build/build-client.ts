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
  /** The package as it is published. */
  directory: string;
  /** The same as npm installs it. */
  tarball: string;
}

/**
 * Makes the client a package of its own: its JavaScript, and of all declarations those that its types lead to.
 *
 *     client/*.ts, server/**.ts ── tsc ──▶ .js and .d.ts of everything ── reach from client/index ──▶ <distDir>/client
 *                                                                                 npm pack ──▶ <distDir>/*.tgz
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
    const place = join(directory, path);
    await mkdir(dirname(place), { recursive: true });
    await writeFile(place, text);
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

/** npm 12 keys the report by package, npm before it lists it. */
function findFilename(report: unknown): string {
  const [packed] = Object.values(report as Record<string, { filename?: unknown }>);
  if (typeof packed?.filename !== "string") throw new Error("npm pack does not say what it wrote");
  return packed.filename;
}

/** The compiler tells what is wrong on its standard output. */
function withOutput(error: unknown): unknown {
  if (!(error instanceof Error && "stdout" in error)) return error;
  return new Error(`${error.message}\n${String(error.stdout)}`, { cause: error });
}
