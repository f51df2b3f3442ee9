import { z } from "zod";
import { findChainState } from "../../db/audit-anchors.ts";
import { instantText } from "../time/instant-text.ts";
import type { BaseContext } from "../context.ts";
import { toAnchorMac, type MacKeyring } from "./audit-anchor.ts";
import { GENESIS_HASH } from "./audit-row.ts";
import { extendTrust } from "./extend-trust.ts";

export const AuditHead = z
  .object({
    scope: z.string().describe("The chain: a product's id, or `platform`."),
    seq: z.int().describe("The number of the chain's last row; 0 for an empty chain."),
    hash: z.string().describe("The hash of that row; 64 zeros for an empty chain."),
    at: instantText("When the service answered, with milliseconds."),
    mac: z
      .string()
      .nullable()
      .describe(
        "The service vouches with its master key for the other fields. null: the chain is empty, or does not verify up to here; call `audit.verify`.",
      ),
  })
  .meta({
    id: "AuditHead",
    description:
      "The end of an audit chain. Keep it in a place that writers of the database cannot change, and give it to `audit.verify` later.",
  });
export type AuditHead = z.infer<typeof AuditHead>;

/** Reads the end of the chain. Vouches for it only if there are rows, and those since the last anchor verify. Changes nothing. */
export async function getAuditHead(
  ctx: Pick<BaseContext, "db" | "raw" | "clock"> & { keyring: MacKeyring },
  { scope }: { scope: string },
): Promise<AuditHead> {
  const state = await findChainState(ctx.db, scope);
  const { head = { seq: 0, hash: GENESIS_HASH } } = state;
  const claim = { scope, ...head, at: new Date(ctx.clock.now()).toISOString() };
  const { fault } = await extendTrust(ctx, { scope, state });
  return {
    ...claim,
    mac: fault || claim.seq === 0 ? null : toAnchorMac(ctx.keyring, { kind: "known", ...claim }),
  };
}
