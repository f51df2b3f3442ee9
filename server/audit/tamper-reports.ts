import { LRUCache } from "lru-cache";
import type { BaseContext } from "../context.ts";
import { toErrorMessage, type TamperedRow } from "../errors.ts";
import { explainTampering } from "../keys/tampered-row.ts";
import { recordCall, type AuditAppends } from "./append-audit.ts";
import { SYSTEM_ACTOR } from "./audit-entry.ts";

type ReportContext = Pick<BaseContext, "clock" | "log"> & { auditAppends: AuditAppends };

/** The same row is reported again after this time, if it is still refused. */
const REPEAT_MS = 3_600_000;
const MAX_REMEMBERED = 10_000;
/** All reports together. Who writes the database could otherwise make the audit log grow with every call. */
const MAX_PER_HOUR = 200;

/**
 * Reports rows that do not verify: a line in the log, and a row in the audit chain `platform`. Each refusal of a row
 * would be too many: a forged key may be sent a thousand times a second.
 */
export class TamperReports {
  readonly #ctx: ReportContext;
  readonly #reported = new LRUCache<string, number>({ max: MAX_REMEMBERED });
  #hourBegan = 0;
  #inHour = 0;
  #suppressed = 0;

  constructor(ctx: ReportContext) {
    this.#ctx = ctx;
  }

  /** Never throws. The audit row is written in the background, because the refusal must not wait for the database. */
  report(row: TamperedRow): void {
    const now = this.#ctx.clock.now();
    const name = JSON.stringify([row.table, row.id, row.mac]);
    const reportedAt = this.#reported.get(name);
    if (reportedAt !== undefined && now < reportedAt + REPEAT_MS && now >= reportedAt) return;
    if (!this.#takeFromHour(now)) return;
    this.#reported.set(name, now);
    const { table, id } = row;
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    const fields = { table, rowId: id, suppressed, why: explainTampering(table, id) };
    this.#ctx.log.error(fields, "a row was changed outside of the service");
    recordCall(this.#ctx, {
      // The row's own product may be forged too.
      scope: "platform",
      actor: SYSTEM_ACTOR,
      action: "row.tampering_found",
      engineId: table === "engines" ? id : null,
      metadata: { table, rowId: id, hasMac: row.mac !== null, suppressed },
    }).catch((error: unknown) => {
      this.#reported.delete(name);
      this.#ctx.log.error({ table, rowId: id, error: toErrorMessage(error) }, "tampering was not audited");
    });
  }

  #takeFromHour(now: number): boolean {
    if (now >= this.#hourBegan + REPEAT_MS || now < this.#hourBegan) {
      this.#hourBegan = now;
      this.#inHour = 0;
    }
    this.#inHour += 1;
    if (this.#inHour <= MAX_PER_HOUR) return true;
    this.#suppressed += 1;
    return false;
  }
}
