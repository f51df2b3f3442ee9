import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { migrationsDir } from "./migration-files.ts";
import drizzleConfig from "../drizzle.config.ts";

// `drizzle-kit check` does not find drift. Generating a migration does, so this program generates into a copy.
const rootDir = fileURLToPath(new URL("..", import.meta.url));
const remedy = "run `npm run db:generate`";
const copyDir = await mkdtemp(join(tmpdir(), "enginehouse-drift-"));
try {
  await cp(migrationsDir, copyDir, { recursive: true });
  const output = await generateInto(copyDir);
  const drift = await listNewFiles(copyDir);
  if (drift.length > 0) {
    fail(`the schema has changes without a migration: ${remedy}\n${drift.join("\n")}`);
  } else if (!output.includes("No schema changes")) {
    // drizzle-kit exits with 0 even when it fails or has a question, so only its output counts.
    fail(`the schema and migrations/ differ, or drizzle-kit failed: ${remedy}\n${output}`);
  }
} finally {
  await rm(copyDir, { recursive: true, force: true });
}

async function generateInto(dir: string): Promise<string> {
  const program = join(rootDir, "node_modules", "drizzle-kit", "bin.cjs");
  // drizzle-kit puts "./" before this path, so it must be relative.
  const out = `--out=${relative(rootDir, dir)}`;
  const { dialect, schema } = drizzleConfig;
  const args = [program, "generate", `--dialect=${dialect}`, `--schema=${String(schema)}`, out];
  return new Promise((resolve) => {
    const child = execFile(process.execPath, args, { cwd: rootDir }, (error, stdout, stderr) => {
      resolve(`${stdout}${stderr}${error?.message ?? ""}`.trim());
    });
    child.stdin?.end();
  });
}

async function listNewFiles(dir: string): Promise<string[]> {
  const known = new Set(await readdir(migrationsDir));
  const added = (await readdir(dir)).filter((name) => !known.has(name));
  return Promise.all(added.map(async (name) => `${name}:\n${await readFile(join(dir, name), "utf8")}`));
}

function fail(message: string): void {
  process.stderr.write(`check:migrations: ${message}\n`);
  process.exitCode = 1;
}
