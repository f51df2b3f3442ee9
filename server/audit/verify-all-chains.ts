import { listChains } from "../../db/audit-anchors.ts";
import type { AuditHead } from "./audit-head.ts";
import type { ChainVerdict } from "./verify-audit.ts";
import { verifyAudit, type VerifyContext } from "./verify-audit.ts";

/** Checks every chain of a database, with each kept head. A chain has one verdict: that of the first head that fails. */
export async function verifyAllChains(
  ctx: VerifyContext,
  knownHeads: readonly Pick<AuditHead, "scope" | "seq" | "hash">[],
): Promise<ChainVerdict[]> {
  const scopes = new Set([...(await listChains(ctx.raw)), ...knownHeads.map(({ scope }) => scope)]);
  const verdicts: ChainVerdict[] = [];
  for (const scope of [...scopes].sort()) {
    const [first, ...others] = knownHeads.filter((known) => known.scope === scope);
    let verdict = await verifyAudit(ctx, { scope, knownHead: first });
    for (const knownHead of others) {
      if (!verdict.ok) break;
      // The whole chain was walked already, so the rows after the head are enough.
      verdict = {
        ...(await verifyAudit(ctx, { scope, knownHead, fromSeq: verdict.headSeq + 1 })),
        checked: verdict.checked,
      };
    }
    verdicts.push({ scope, ...verdict });
  }
  return verdicts;
}
