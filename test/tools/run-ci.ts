import { join } from "node:path";
import { postgres15Suite, withPostgres15 } from "../postgres-15/postgres-15.ts";
import { runSuite, type Suite } from "./run-suite.ts";
import { addResults, toClosingLines, type SuiteResult } from "./suite-result.ts";

/*
 * `npm run test:ci`: the tests of `npm test`, `npm run test:long` and `npm run test:postgres-15`. A failed file runs
 * once more. The last lines name each failed and each flaky test and sum up.
 */

const root = join(import.meta.dirname, "../..");
const suites: Suite[] = [
  { name: "npm test", root, env: process.env, args: [] },
  { name: "npm run test:long", root, env: process.env, args: ["--mode=long"] },
];

const results: SuiteResult[] = [];
for (const suite of suites) {
  console.log(`\n== ${suite.name}`);
  results.push(await runSuite(suite));
}
console.log("\n== npm run test:postgres-15");
results.push(await withPostgres15(async (url) => runSuite(postgres15Suite(url))));

const result = addResults(results);
console.log(`\n${toClosingLines(result).join("\n")}`);
if (result.failed > 0) process.exitCode = 1;
