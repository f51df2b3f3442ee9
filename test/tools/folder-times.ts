import { relative } from "node:path";
import type { Reporter, TestModule, Vitest } from "vitest/node";

/** How long one test file took. */
export interface FileTime {
  /** Path below the root of the repository, with forward slashes. */
  file: string;
  /** Imports, hooks and tests. Files run in parallel, so the sum over all files exceeds the time on the clock. */
  durationMs: number;
}

/** A vitest reporter that ends each run with a table: folder, files, seconds, slowest file. */
export class FolderTimes implements Reporter {
  #vitest: Vitest | undefined;

  onInit(vitest: Vitest): void {
    this.#vitest = vitest;
  }

  onTestRunEnd(modules: ReadonlyArray<TestModule>): void {
    const vitest = this.#vitest;
    if (vitest === undefined || modules.length === 0) return;
    const times = modules.map((module) => ({
      file: relative(vitest.config.root, module.moduleId).replaceAll("\\", "/"),
      durationMs: module.diagnostic().duration + module.diagnostic().collectDuration,
    }));
    vitest.logger.log(`\n${toFolderTable(times).join("\n")}`);
  }
}

// Vitest loads a reporter by the default export of its file.
export { FolderTimes as default };

/** The lines of the table, slowest folder first. A folder is `test/` and the next part of the path. */
export function toFolderTable(times: readonly FileTime[]): string[] {
  const folders = Map.groupBy(times, ({ file }) => file.split("/").slice(0, 2).join("/"));
  const rows = Array.from(folders, ([folder, files]) => {
    const slowest = files.reduce((a, b) => (b.durationMs > a.durationMs ? b : a));
    const durationMs = files.reduce((sum, file) => sum + file.durationMs, 0);
    return { folder, files: files.length, durationMs, slowest };
  }).sort((a, b) => b.durationMs - a.durationMs);
  const cells = rows.map(({ folder, files, durationMs, slowest }) => [
    folder,
    String(files),
    toSeconds(durationMs),
    `${slowest.file} (${toSeconds(slowest.durationMs)})`,
  ]);
  const lines = [["folder", "files", "seconds", "slowest file (seconds)"], ...cells];
  const widths = [0, 1, 2].map((column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  return lines.map(([folder = "", files = "", seconds = "", slowest = ""]) =>
    [
      folder.padEnd(widths[0] ?? 0),
      files.padStart(widths[1] ?? 0),
      seconds.padStart(widths[2] ?? 0),
      slowest,
    ].join("  "),
  );
}

function toSeconds(durationMs: number): string {
  return (durationMs / 1_000).toFixed(1);
}
