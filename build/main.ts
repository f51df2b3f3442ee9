import { stat } from "node:fs/promises";
import { join, relative } from "node:path";
import { exitIfAnswered } from "../cli/command-line.ts";
import { buildClient } from "./build-client.ts";

exitIfAnswered({ usage: "npm run build    build the client package into dist/" });

const distDir = join(import.meta.dirname, "..", "dist");
const { directory, tarball } = await buildClient(distDir);
const { size } = await stat(tarball);
for (const line of [
  relative(process.cwd(), directory),
  `${relative(process.cwd(), tarball)} (${Math.ceil(size / 1024)} KB)`,
]) {
  process.stdout.write(`${line}\n`);
}
