/** What a run of a suite found, after its failed files ran a second time. */
export interface SuiteResult {
  passed: number;
  failed: number;
  skipped: number;
  /** `file › test` of each test that failed at first and whose file passed the second time. */
  flaky: string[];
  /** `file › test` of each test of a file that failed twice, and what failed outside of any file. */
  failures: string[];
}

/** One file of a run. */
export interface FileResult {
  /** Path below the root of the suite. */
  file: string;
  passed: number;
  skipped: number;
  /** Names of failed tests. A file that failed outside of its tests, in an import or a hook, has one entry. */
  failed: string[];
}

/** `second` has the second run of each failed file, by file. */
export function judgeFiles(
  first: readonly FileResult[],
  second: ReadonlyMap<string, FileResult>,
): SuiteResult {
  const result: SuiteResult = { passed: 0, failed: 0, skipped: 0, flaky: [], failures: [] };
  for (const file of first) {
    const last = second.get(file.file) ?? file;
    const names = (tests: readonly string[]) => tests.map((test) => `${file.file} › ${test}`);
    result.passed += last.passed;
    result.skipped += last.skipped;
    result.failed += last.failed.length;
    result.failures.push(...names(last.failed));
    result.flaky.push(...names(file.failed.filter((test) => !last.failed.includes(test))));
  }
  return result;
}

export function addResults(results: readonly SuiteResult[]): SuiteResult {
  return {
    passed: results.reduce((sum, { passed }) => sum + passed, 0),
    failed: results.reduce((sum, { failed }) => sum + failed, 0),
    skipped: results.reduce((sum, { skipped }) => sum + skipped, 0),
    flaky: results.flatMap(({ flaky }) => flaky),
    failures: results.flatMap(({ failures }) => failures),
  };
}

/** The last lines of a CI run: each failure, each flaky test, and one line that sums up. */
export function toClosingLines({ passed, failed, skipped, flaky, failures }: SuiteResult): string[] {
  return [
    ...failures.map((name) => `FAILED ${name}`),
    ...flaky.map((name) => `FLAKY ${name}`),
    `${passed} passed, ${failed} failed, ${skipped} skipped`,
  ];
}
