import { execFile } from "node:child_process";
import { cp, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { buildClient } from "../../build/build-client.ts";
import { openTempDir } from "../support/temp-dir.ts";

const exec = promisify(execFile);
const CALLS = join(import.meta.dirname, "consumer");
const README = join(import.meta.dirname, "..", "..", "client", "README.md");
const TSC = join(import.meta.dirname, "..", "..", "node_modules", "typescript", "bin", "tsc");

/** The oldest release of each Node line that the package supports. The tests themselves run on the newest line. */
export const OLD_NODES = ["20.3.0", "22.0.0"] as const;
export const OLD_TYPESCRIPT = "5.9.3";

/** The compiler options that the README asks of callers, and no more. */
const COMPILER_OPTIONS = {
  target: "es2022",
  lib: ["es2022", "esnext.disposable", "dom"],
  types: [],
  strict: true,
  skipLibCheck: false,
  rootDir: "calls",
  outDir: "out",
};

export interface Consumer extends AsyncDisposable {
  readonly directory: string;
  /** Returns the errors of the compiler; empty if there are none. */
  compile(compiler: "current" | "old", options: Readonly<Record<string, string | boolean>>): Promise<string>;
  /** Runs a program of the project with one of its Nodes, or with the Node of this process. */
  run(node: string, args: readonly string[]): Promise<string>;
}

/**
 * A project that has installed only the tarball, and the Nodes and the compiler to test it with.
 *
 * @throws npm's error when the registry cannot be reached.
 */
export async function openConsumer(): Promise<Consumer> {
  await using stack = new AsyncDisposableStack();
  const { path } = stack.use(await openTempDir());
  const { tarball } = await buildClient(join(path, "dist"));
  const directory = join(path, "project");
  await mkdir(directory);
  await cp(CALLS, join(directory, "calls"), { recursive: true });
  for (const [index, example] of findExamples(await readFile(README, "utf8")).entries())
    await writeFile(join(directory, "calls", `readme-example-${index}.ts`), example);
  await writeFile(join(directory, "package.json"), JSON.stringify(toManifest(tarball)));
  const flags = [
    "--prefer-offline",
    "--no-audit",
    "--no-fund",
    "--fetch-retries=1",
    "--fetch-retry-mintimeout=500",
  ];
  await exec("npm", ["install", ...flags], { cwd: directory, timeout: 600_000 });
  const opened = stack.move();
  return {
    directory,
    compile: async (compiler, options) => {
      const config = join(directory, `tsconfig-${crypto.randomUUID()}.json`);
      await writeFile(
        config,
        JSON.stringify({ compilerOptions: { ...COMPILER_OPTIONS, ...options }, include: ["calls"] }),
      );
      const tsc = compiler === "current" ? TSC : join(directory, "node_modules", "typescript", "bin", "tsc");
      return readOutput(process.execPath, [tsc, "-p", config]);
    },
    run: async (node, args) => {
      const isOld = OLD_NODES.some((version) => version === node);
      const program = isOld
        ? join(directory, "node_modules", `node-${node}`, "bin", "node")
        : process.execPath;
      const { stdout, stderr } = await exec(program, args, { cwd: directory, timeout: 120_000 });
      if (stderr !== "") throw new Error(`Node ${node} wrote to its standard error: ${stderr}`);
      return stdout;
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

function findExamples(readme: string): string[] {
  const examples = [...readme.matchAll(/```ts\n(.*?)```/gs)].map((match) => match[1] ?? "");
  if (examples.length < 2)
    throw new Error("the package's README lacks an example of the client, or of a gateway");
  return examples;
}

/** The package `node` installs these packages with a script. npm may refuse to run scripts, so name them directly. */
function toManifest(tarball: string): object {
  const nodes = OLD_NODES.map((version) => [
    `node-${version}`,
    `npm:node-${process.platform}-${process.arch}@${version}`,
  ]);
  return {
    private: true,
    type: "module",
    dependencies: { "@enginehouse/client": `file:${tarball}` },
    devDependencies: { typescript: OLD_TYPESCRIPT, ...(Object.fromEntries(nodes) as Record<string, string>) },
  };
}

async function readOutput(program: string, args: readonly string[]): Promise<string> {
  try {
    return (await exec(program, args)).stdout;
  } catch (error) {
    if (error instanceof Error && "stdout" in error && error.stdout !== "") return String(error.stdout);
    throw error;
  }
}

const UNREACHABLE = /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|EHOSTUNREACH|ETIMEDOUT|ERR_SOCKET_TIMEOUT/;

/** Whether npm failed because there is no network. */
export function isRegistryUnreachable(error: unknown): boolean {
  return error instanceof Error && "stderr" in error && UNREACHABLE.test(String(error.stderr));
}
