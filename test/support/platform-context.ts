import { randomUUIDv7 } from "node:crypto";
import { openDatabase, type Database } from "../../db/client.ts";
import { insertEngine, type EngineRow } from "../../db/engines.ts";
import { OpenStreams } from "../../server/admission/open-streams.ts";
import { NO_RECORD } from "../../server/idempotency/idempotency-record.ts";
import { systemClock } from "../../server/time/clock.ts";
import { parseConfig } from "../../server/config/config.ts";
import type { BaseContext, CallContext } from "../../server/context.ts";
import { openAuditAppends, type AuditAppends } from "../../server/audit/append-audit.ts";
import { TamperReports } from "../../server/audit/tamper-reports.ts";
import { generateMasterKeys, openKeyring, type Keyring } from "../../server/keys/keyring.ts";
import { openPlatformKeyInserts, type PlatformKeyInserts } from "../../server/keys/issue-platform-key.ts";
import { KeyStates } from "../../server/keys/key-states.ts";
import { openLog } from "../../server/log.ts";
import { registerProduct } from "../../server/products/register-product.ts";
import { openTestDatabase } from "./test-database.ts";

/** The context for tests of products and keys: a database, and an operator as the caller. */
export interface PlatformContext
  extends Pick<BaseContext, "db" | "raw" | "config" | "log" | "clock">, CallContext, AsyncDisposable {
  readonly url: string;
  readonly keyring: Keyring;
  readonly tamperReports: TamperReports;
  /** The url of the superuser. */
  readonly adminUrl: string;
  readonly keyStates: KeyStates;
  readonly openStreams: OpenStreams;
  readonly platformKeyInserts: PlatformKeyInserts;
  readonly auditAppends: AuditAppends;
}

export async function openPlatformContext(env: Record<string, string> = {}): Promise<PlatformContext> {
  const own = await openTestDatabase();
  const database: Database = openDatabase({ url: own.url, poolSize: 6, applicationName: "platform-test" });
  const close = async () => {
    await database.close();
    await own.close();
  };
  const { db, raw } = database;
  const base = { db, raw, log: openLog({ level: "silent", pretty: false }), clock: systemClock };
  const keyring = openKeyring(generateMasterKeys());
  const auditAppends = openAuditAppends(db);
  const tamperReports = new TamperReports({ ...base, auditAppends });
  return {
    ...base,
    url: own.url,
    adminUrl: own.adminUrl,
    config: parseConfig(env).config,
    keyring,
    tamperReports,
    keyStates: new KeyStates({ ...base, keyring, tamperReports }),
    openStreams: new OpenStreams(systemClock),
    platformKeyInserts: openPlatformKeyInserts(db),
    auditAppends,
    actor: { kind: "operator", id: "bootstrap", name: "bootstrap" },
    requestId: "request 1",
    [Symbol.asyncDispose]: close,
  };
}

let slugs = 0;

export async function addProduct(
  ctx: PlatformContext,
  policy: Parameters<typeof registerProduct>[1]["policy"] = {},
) {
  slugs += 1;
  return registerProduct(ctx, { slug: `product-${slugs}`, name: "Product", policy, idempotency: NO_RECORD });
}

/** Inserts an engine that exists only in the database. */
export async function addEngine(ctx: PlatformContext, productId: string, userId: string): Promise<EngineRow> {
  const id = randomUUIDv7();
  const spec: EngineRow["spec"] = {
    image: "engine:1",
    imageFrom: "default",
    imageId: null,
    environmentNames: [],
    limits: { memoryMb: 64, cpus: 1, pids: 64, readOnly: false, capAdd: [], user: null },
    limitOverrides: {},
    network: "engine_net",
    enginePort: 8000,
    catalogPath: "/catalog",
  };
  const row = await insertEngine(ctx.db, {
    id,
    productId,
    userId,
    desired: "running",
    desiredBy: "caller",
    status: "running",
    spec,
    specHash: "",
    volumeName: `engine-data-${id}`,
    runtimeHost: "test",
    incarnation: 1,
    generation: 1,
    keyHash: "",
    keySealed: "",
    keyPrefix: "",
  });
  if (row === undefined) throw new Error("the engine was not inserted");
  return row;
}
