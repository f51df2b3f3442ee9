import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { sql } from "drizzle-orm";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openDatabase } from "../../db/client.ts";
import { prepareService } from "../../db/prepare-service.ts";
import { getAuditHead } from "../../server/audit/audit-head.ts";
import { verifyDump, type VerifyDumpInput } from "../../server/audit/dump/verify-dump.ts";
import { retireAudit } from "../../server/audit/retire-audit.ts";
import { generateMasterKeys, openKeyring } from "../../server/keys/keyring.ts";
import { shiftDatabaseClock } from "../support/shift-clock.ts";
import { openTempDir, type TempDir } from "../support/temp-dir.ts";
import { openChains, type Chains } from "./open-chains.ts";
import { toDumpText } from "./dump-text.ts";

let chains: Chains;
let dir: TempDir;
beforeAll(async () => {
  chains = await openChains();
  dir = await openTempDir();
});
afterAll(async () => {
  await chains?.[Symbol.asyncDispose]();
  await dir?.[Symbol.asyncDispose]();
});

/** A dump is cut anywhere, also within a character. */
async function* toChunks(text: string): AsyncGenerator<Buffer> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += 777) yield bytes.subarray(at, at + 777);
}

async function verifyText(text: string, scope: string, more: Partial<VerifyDumpInput> = {}) {
  const verdicts = await verifyDump({
    chunks: toChunks(text),
    keyring: chains.keyring,
    knownHeads: [],
    ...more,
  });
  return verdicts.find((verdict) => verdict.scope === scope);
}

async function verifyNow(scope: string, more: Partial<VerifyDumpInput> = {}) {
  return verifyText(await toDumpText(chains.ownerRaw), scope, more);
}

describe("a dump alone shows that a chain verifies", () => {
  test.each(["order by seq", "order by seq desc", "order by hash"])(
    "with its rows in any order: %s",
    async (order) => {
      const scope = await chains.append(40);
      await chains.append(20);
      await chains.append(10, scope);
      await chains.anchor();
      const verdict = await verifyText(await toDumpText(chains.ownerRaw, { order }), scope);
      expect(verdict).toMatchObject({ ok: true, checked: 50, headSeq: 50, anchoredSeq: 50, startSeq: 0 });
    },
  );

  test("without the master key, and then vouches for nothing", async () => {
    const scope = await chains.append(3);
    await chains.anchor();
    const verdict = await verifyNow(scope, { keyring: undefined });
    expect(verdict).toMatchObject({ ok: true, checked: 3, anchoredSeq: 0 });
  });

  test("in any time zone of the dump", async () => {
    const scope = await chains.append(3);
    await using other = openDatabase({
      url: chains.testDatabase.adminUrl,
      poolSize: 2,
      applicationName: "time-zone-test",
    });
    for (const zone of ["Asia/Kathmandu", "America/St_Johns", "UTC"]) {
      const raw = await other.raw.reserve();
      await raw.unsafe(`set timezone = '${zone}'`);
      const text = await toDumpText(raw);
      raw.release();
      expect(await verifyText(text, scope)).toMatchObject({ ok: true, checked: 3 });
    }
  });
});

const at = (scope: string, seq: number) => sql`scope = ${scope} and seq = ${seq}`;

describe("a dump alone shows", () => {
  test.each([
    [
      "a changed row",
      (scope: string) => [sql`update audit_log set user_id = 'eve' where ${at(scope, 3)}`],
      3,
    ],
    ["a removed row", (scope: string) => [sql`delete from audit_log where ${at(scope, 3)}`], 3],
    ["a cut tail", (scope: string) => [sql`delete from audit_log where scope = ${scope} and seq > 3`], 4],
    ["a truncated log", (scope: string) => [sql`delete from audit_log where scope = ${scope}`], 1],
    [
      "an inserted row",
      (scope: string) => [
        sql`insert into audit_log select scope, 6, at, actor, action, user_id, engine_id, request_id, metadata,
              duration_ms, hash, hash from audit_log where ${at(scope, 5)}`,
      ],
      6,
    ],
    [
      "two reordered rows",
      (scope: string) => [
        sql`update audit_log set seq = 99 where ${at(scope, 2)}`,
        sql`update audit_log set seq = 2 where ${at(scope, 3)}`,
        sql`update audit_log set seq = 3 where ${at(scope, 99)}`,
      ],
      2,
    ],
    ["a removed head", (scope: string) => [sql`delete from audit_heads where scope = ${scope}`], 1],
    [
      "a changed head",
      (scope: string) => [sql`update audit_heads set hash = repeat('a', 64) where scope = ${scope}`],
      5,
    ],
  ] as const)("%s", async (_what, toStatements, firstBadSeq) => {
    const scope = await chains.append(5);
    await chains.tamper(...toStatements(scope));
    expect(await verifyNow(scope, { keyring: undefined })).toMatchObject({ ok: false, firstBadSeq });
  });

  test("a chain that was written anew: by its anchor, and by a head that was kept elsewhere", async () => {
    const scope = await chains.append(5);
    const knownHead = await getAuditHead(chains.ctx, { scope });
    await chains.anchor();
    await chains.tamper(sql`update audit_log set user_id = 'eve' where scope = ${scope} and seq = 2`);
    await chains.rewriteFrom(scope, 2);
    expect(await verifyNow(scope)).toMatchObject({ ok: false, problem: "anchor_differs" });
    await chains.tamper(sql`delete from audit_anchors where scope = ${scope}`);
    expect(await verifyNow(scope)).toMatchObject({ ok: true });
    const known = { knownHeads: [knownHead] };
    expect(await verifyNow(scope, known)).toMatchObject({ ok: false, problem: "known_head_differs" });
    await chains.tamper(
      sql`delete from audit_log where scope = ${scope}`,
      sql`delete from audit_heads where scope = ${scope}`,
    );
    expect(await verifyNow(scope, known)).toMatchObject({ ok: false, firstBadSeq: 1 });
  });

  test("an anchor of another master key, and one that was changed", async () => {
    const scope = await chains.append(3);
    await chains.anchor();
    const keyring = openKeyring(generateMasterKeys());
    expect(await verifyNow(scope, { keyring })).toMatchObject({ ok: false, problem: "anchor_key_missing" });
    await chains.tamper(sql`update audit_anchors set at = at + interval '1 hour' where scope = ${scope}`);
    expect(await verifyNow(scope)).toMatchObject({ ok: false, problem: "anchor_forged" });
  });
});

test("a chain whose old rows were removed verifies from its start", async () => {
  await shiftDatabaseClock(chains.testDatabase.url, "0");
  const scope = await chains.append(3);
  await shiftDatabaseClock(chains.testDatabase.url, "40 days");
  await chains.append(2, scope);
  await chains.anchor();
  const auditRetentionMs = 30 * 86_400_000;
  await prepareService({ url: chains.testDatabase.adminUrl, serviceRole: undefined, auditRetentionMs });
  await retireAudit(chains.ctx);
  expect(await verifyNow(scope)).toMatchObject({ ok: true, checked: 2, startSeq: 3, headSeq: 5 });
  await shiftDatabaseClock(chains.testDatabase.url, "0");
});

test("a dump that was cut off, or has no audit log, is refused", async () => {
  const scope = await chains.append(3);
  const text = await toDumpText(chains.ownerRaw);
  await expect(verifyText(text.slice(0, text.lastIndexOf("\\.")), scope)).rejects.toThrow("it was cut off");
  await expect(verifyText("-- nothing\n", scope)).rejects.toThrow("the dump has no rows");
});

interface Ran {
  code: unknown;
  stdout: string;
  stderr: string;
}

async function runProgram(args: readonly string[], env: Record<string, string> = {}): Promise<Ran> {
  const program = join(import.meta.dirname, "../../server/audit/verify-main.ts");
  return new Promise((resolve) => {
    execFile(process.execPath, [program, ...args], { env }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr });
    });
  });
}

test("audit:verify checks a dump, a compressed one and a database, with a kept head, and its exit code tells", async () => {
  await using own = await openChains();
  const scope = await own.append(4);
  await own.anchor();
  const head = await getAuditHead(own.ctx, { scope });
  const file = async (name: string, content: string | Buffer) => {
    const path = join(dir.path, name);
    await writeFile(path, content);
    return path;
  };
  const heads = await file(
    "heads.json",
    `${JSON.stringify(head)}\n${JSON.stringify({ result: { data: head } })}\n`,
  );
  const text = await toDumpText(own.ownerRaw);
  const plain = await file("dump.sql", text);
  const zipped = await file("dump.sql.gz", gzipSync(text));
  for (const source of [plain, zipped, `--database-url=${own.testDatabase.url}`]) {
    const ran = await runProgram([source, `--head=${heads}`]);
    expect(ran).toMatchObject({ code: 0, stderr: "" });
    expect(ran.stdout).toContain(`ok   ${scope}: 4 rows, head 4 ${head.hash}, MACs not checked`);
  }
  await own.tamper(
    sql`delete from audit_log where scope = ${scope} and seq > 2`,
    sql`update audit_heads h set seq = 2, hash = l.hash from audit_log l
          where h.scope = ${scope} and l.scope = h.scope and l.seq = 2`,
    sql`delete from audit_anchors where scope = ${scope}`,
  );
  const cut = await file("cut.sql", await toDumpText(own.ownerRaw));
  expect(await runProgram([cut])).toMatchObject({ code: 0 });
  for (const source of [cut, `--database-url=${own.testDatabase.url}`]) {
    const ran = await runProgram([source, `--head=${heads}`]);
    expect(ran.code).toBe(1);
    expect(ran.stdout).toContain(`BAD  ${scope}: known_head_differs at row 3; 2 rows before it are good`);
    expect(ran.stdout).toContain("1 of 1 chains do not verify");
  }
  expect(await runProgram([])).toMatchObject({ code: 2 });
  expect(await runProgram([join(dir.path, "missing.sql")])).toMatchObject({ code: 1 });
});
