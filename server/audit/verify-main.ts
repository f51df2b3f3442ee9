import "../../cli/quick-imports.ts";
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { exitIfAnswered } from "../../cli/command-line.ts";
import { toErrorMessage } from "../errors.ts";
import type { MacKeyring } from "./audit-anchor.ts";
import type { ChainVerdict } from "./verify-audit.ts";

/*
 * Exit codes: 0 when every chain verifies, 1 when one does not or the source cannot be read, 2 for a wrong argument.
 */

exitIfAnswered({
  settings: ["ORCH_DATABASE_URL", "ORCH_MASTER_KEYS"],
  takes: (argument) =>
    !argument.startsWith("-") || argument === "-" || /^--(head|database-url)=./.test(argument),
  usage: `
npm run audit:verify -- <dump> [--head=<file>]              check the audit log in a dump of pg_dump
npm run audit:verify -- --database-url=<url> [--head=<file>]  check the audit log of a database

<dump> is plain text, also compressed with gzip, or an archive, which needs pg_restore. "-" is the standard input.
Without <dump> and --database-url, ORCH_DATABASE_URL is the database.
<file> has answers of audit.head that were kept elsewhere, as JSON: one of them, a list, or one on each line.
With ORCH_MASTER_KEYS the MACs of the anchors are checked too. The service need not run.`,
});

const { values, positionals } = parseArgs({
  options: { head: { type: "string" }, "database-url": { type: "string" } },
  allowPositionals: true,
});
const [dump, ...more] = positionals;
const databaseUrl = values["database-url"] ?? (process.env["ORCH_DATABASE_URL"] || undefined);

if (more.length > 0 || (dump !== undefined && values["database-url"] !== undefined)) {
  refuse("give one dump or one database");
} else if (dump === undefined && databaseUrl === undefined) {
  refuse("give a dump, or --database-url; --help shows the usage");
} else {
  await run().catch((error: unknown) => {
    process.stderr.write(`audit:verify: ${toErrorMessage(error)}\n`);
    process.exitCode = 1;
  });
}

function refuse(problem: string): void {
  process.stderr.write(`audit:verify: ${problem}\n`);
  process.exitCode = 2;
}

async function run(): Promise<void> {
  const { openKeyring } = await import("../keys/keyring.ts");
  const { readKnownHeads } = await import("./dump/known-heads.ts");
  const masterKeys = process.env["ORCH_MASTER_KEYS"] || undefined;
  const keyring = masterKeys === undefined ? undefined : openKeyring(masterKeys);
  const knownHeads = values.head === undefined ? [] : readKnownHeads(await readFile(values.head, "utf8"));
  const verdicts =
    dump === undefined
      ? await verifyDatabase(databaseUrl ?? "", { keyring, knownHeads })
      : await verifyFile(dump, { keyring, knownHeads });
  for (const verdict of verdicts) process.stdout.write(`${toLine(verdict, keyring !== undefined)}\n`);
  const bad = verdicts.filter(({ ok }) => !ok).length;
  process.stdout.write(
    bad === 0 ? `${verdicts.length} chains verify\n` : `${bad} of ${verdicts.length} chains do not verify\n`,
  );
  if (bad > 0) process.exitCode = 1;
}

interface Checks {
  keyring: MacKeyring | undefined;
  knownHeads: readonly { scope: string; seq: number; hash: string }[];
}

async function verifyFile(path: string, checks: Checks): Promise<ChainVerdict[]> {
  const { openDump } = await import("./dump/open-dump.ts");
  const { verifyDump } = await import("./dump/verify-dump.ts");
  return verifyDump({ chunks: openDump(path), ...checks });
}

async function verifyDatabase(url: string, checks: Checks): Promise<ChainVerdict[]> {
  const { openDatabase } = await import("../../db/client.ts");
  const { verifyAllChains } = await import("./verify-all-chains.ts");
  await using database = openDatabase({ url, poolSize: 2, applicationName: "enginehouse-audit-verify" });
  return await verifyAllChains({ ...database, keyring: checks.keyring }, checks.knownHeads);
}

function toLine({ scope, ...verdict }: ChainVerdict, checksMacs: boolean): string {
  const { ok, checked, headSeq, headHash, startSeq, anchoredSeq, firstBadSeq, problem } = verdict;
  const range = startSeq === 0 ? "" : `, starts after row ${startSeq}`;
  const anchored = checksMacs ? `, the service vouches for rows up to ${anchoredSeq}` : ", MACs not checked";
  const end = `head ${headSeq} ${headHash}`;
  if (ok) return `ok   ${scope}: ${checked} rows${range}, ${end}${anchored}`;
  return `BAD  ${scope}: ${problem} at row ${firstBadSeq}; ${checked} rows before it are good${range}, ${end}${anchored}`;
}
