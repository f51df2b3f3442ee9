import { writeFileSync } from "node:fs";
import { relative } from "node:path";
import type { Reporter, SerializedError, TestModule, Vitest } from "vitest/node";
import type { FileResult } from "./suite-result.ts";

/** What one run of vitest found. */
export interface VitestReport {
  files: FileResult[];
  /** Errors that vitest caught while it ran no particular test, such as unhandled rejections. */
  unhandledErrors: number;
}

/** Names the file that the report is written to. */
export const REPORT_VARIABLE = "SUITE_REPORT";

/** A vitest reporter that writes a `VitestReport` as JSON. Vitest's own JSON report omits unhandled errors. */
export class SuiteReport implements Reporter {
  #root = "";

  onInit(vitest: Vitest): void {
    this.#root = vitest.config.root;
  }

  onTestRunEnd(modules: ReadonlyArray<TestModule>, errors: ReadonlyArray<SerializedError>): void {
    const files = modules.map((module) => toFileResult(module, this.#root));
    const report: VitestReport = { files, unhandledErrors: errors.length };
    const path = process.env[REPORT_VARIABLE];
    if (path !== undefined) writeFileSync(path, JSON.stringify(report));
  }
}

// Vitest loads a reporter by the default export of its file.
export { SuiteReport as default };

/** Stands for a test where a file failed in an import or in a hook. */
const OUTSIDE_OF_TESTS = "(outside of its tests)";

function toFileResult(module: TestModule, root: string): FileResult {
  const result: FileResult = { file: relative(root, module.moduleId), passed: 0, skipped: 0, failed: [] };
  for (const test of module.children.allTests()) {
    const { state } = test.result();
    if (state === "passed") result.passed += 1;
    else if (state === "failed") result.failed.push(test.fullName.replaceAll(" > ", " › "));
    else result.skipped += 1;
  }
  if (module.state() === "failed" && result.failed.length === 0) result.failed.push(OUTSIDE_OF_TESTS);
  return result;
}
