import { stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { buildClient } from "./build-client.ts";

const distDir = join(import.meta.dirname, "..", "dist");
const { directory, tarball } = await buildClient(distDir);
const { size } = await stat(tarball);
for (const line of [
  relative(process.cwd(), directory),
  `${relative(process.cwd(), tarball)} (${Math.ceil(size / 1024)} KB)`,
]) {
  process.stdout.write(`${line}\n`);
}
