import type { AnchorRow, ChainEnd, ChainState } from "../../db/audit-anchors.ts";
import type { Keyring } from "../keys/keyring.ts";
import { isRowMac, toMacInstant, toRowMac, type MacInput } from "../keys/row-mac.ts";
import type { AuditProblem, ChainFault } from "./chain-check.ts";

export type MacKeyring = Pick<Keyring, "firstKeyId" | "keyIds" | "macKey">;

/** What a MAC vouches for. `known` is a head that `audit.head` gave, to be kept elsewhere. */
export interface AnchorClaim extends ChainEnd {
  kind: AnchorRow["kind"] | "known";
  scope: string;
  at: string;
}

function toMacInput({ kind, scope, seq, hash, at }: AnchorClaim): MacInput {
  return { purpose: "audit_head", fields: [kind, scope, seq, hash, toMacInstant(at)] };
}

export function toAnchorMac(keyring: MacKeyring, claim: AnchorClaim): string {
  return toRowMac(keyring, toMacInput(claim));
}

/** undefined: a holder of the master key made the MAC for this claim, or the keyring lacks the key of a kept head. */
export function findMacProblem(
  keyring: MacKeyring,
  claim: AnchorClaim,
  mac: string,
): AuditProblem | undefined {
  if (isRowMac(keyring, toMacInput(claim), mac)) return undefined;
  const hasKey = keyring.keyIds.includes(mac.slice(0, mac.indexOf(":")));
  // Kept heads are not resealed. So a genuine one outlives its master key; its hash is still compared.
  if (claim.kind === "known") return hasKey ? "known_head_forged" : undefined;
  return hasKey ? "anchor_forged" : "anchor_key_missing";
}

export interface CheckedAnchors {
  /** undefined: there is none, or its MAC does not verify. */
  head: AnchorRow | undefined;
  /** Also one whose MAC does not verify, because nothing before it can be checked anyway. */
  start: AnchorRow | undefined;
  /** The first anchor whose MAC does not verify. Without a keyring, no MAC is checked. */
  fault: ChainFault | undefined;
}

export function checkAnchors(keyring: MacKeyring | undefined, { anchors }: ChainState): CheckedAnchors {
  const find = (kind: AnchorRow["kind"]) => anchors.find((anchor) => anchor.kind === kind);
  const [start, head] = [find("start"), find("head")];
  const findFault = (anchor: AnchorRow | undefined): ChainFault | undefined => {
    const problem = anchor && keyring && findMacProblem(keyring, anchor, anchor.mac);
    return problem && { seq: anchor.seq, problem };
  };
  const headFault = findFault(head);
  return { head: headFault ? undefined : head, start, fault: findFault(start) ?? headFault };
}
