import { auditAnchors } from "./audit-tables.ts";
import { engines, idempotency, operators, platformKeys, products } from "./schema.ts";
import type { SealedColumns } from "./sealed-rows.ts";

/** Every column that is made with a master key. `server/master-keys/sealed-tables.ts` says how it is made. */
export const SEALED_COLUMNS = {
  engines: {
    table: engines,
    key: [engines.id],
    sealed: [engines.keySealed, engines.nextKeySealed],
    macs: [engines.mac, engines.endpointMac],
  },
  products: { table: products, key: [products.id], sealed: [], macs: [products.mac] },
  platform_keys: { table: platformKeys, key: [platformKeys.id], sealed: [], macs: [platformKeys.mac] },
  operators: { table: operators, key: [operators.id], sealed: [], macs: [operators.mac] },
  idempotency: {
    table: idempotency,
    key: [idempotency.scope, idempotency.key],
    sealed: [idempotency.replySealed],
    macs: [],
  },
  audit_anchors: {
    table: auditAnchors,
    key: [auditAnchors.scope, auditAnchors.kind],
    sealed: [],
    macs: [auditAnchors.mac],
  },
} as const satisfies Record<string, SealedColumns>;
