import { runSuite } from "../tools/run-suite.ts";
import { toClosingLines } from "../tools/suite-result.ts";
import { postgres15Suite, withPostgres15 } from "./postgres-15.ts";

/* `npm run test:postgres-15`: the tests that use a database, on the oldest Postgres that the binaries' package has. */

const result = await withPostgres15(async (url) => runSuite(postgres15Suite(url)));
console.log(`\n${toClosingLines(result).join("\n")}`);
if (result.failed > 0) process.exitCode = 1;
