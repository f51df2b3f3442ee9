import "../../cli/quick-imports.ts";
import { exitIfAnswered } from "../../cli/command-line.ts";

const ROW_ARGUMENT = /^--row=(?<table>engines|products|platform_keys):(?<id>[0-9a-f-]{36})$/;
const isKnown = (argument: string) => argument === "--write" || ROW_ARGUMENT.test(argument);

exitIfAnswered({
  settings: ["ORCH_DATABASE_URL", "ORCH_MASTER_KEYS"],
  takes: isKnown,
  usage: `
npm run keys:adopt                             show the rows without a MAC, and change nothing
npm run keys:adopt -- --write                  make the MACs of these rows
npm run keys:adopt -- --row=engines:<id>       the same for one row of engines, products or platform_keys,
                                               also if its MAC does not verify

Rows of an earlier version have no MACs. The service refuses such rows, because a row whose MAC was erased looks the
same. So stop the service, check the rows that this program shows, and then run it with --write. It needs
ORCH_DATABASE_URL and ORCH_MASTER_KEYS as the service has them. Exit codes: 0 when all is done or shown, 1 when it
failed, 2 when a setting is missing or wrong.`,
});

const { runAdoption } = await import("./run-adoption.ts");
const args = process.argv.slice(2);
const row = args
  .map((argument) => ROW_ARGUMENT.exec(argument)?.groups)
  .find((groups) => groups !== undefined);

process.exitCode = await runAdoption({
  databaseUrl: process.env["ORCH_DATABASE_URL"] ?? "",
  masterKeys: process.env["ORCH_MASTER_KEYS"] ?? "",
  write: args.includes("--write"),
  row: row === undefined ? undefined : { table: row["table"] ?? "", id: row["id"] ?? "" },
  print: (line) => process.stdout.write(`keys:adopt: ${line}\n`),
  printProblem: (line) => process.stderr.write(`keys:adopt: ${line}\n`),
});
