import type { AuditAppends } from "../audit/append-audit.ts";
import type { BaseContext, CallContext } from "../context.ts";
import type { AcquireContext } from "../engines/access/acquire-engine.ts";
import type { EngineConnections } from "../engine-contract/connections.ts";

/** What a call into an engine needs, and the identity of its caller. */
export interface RpcContext extends AcquireContext, Pick<BaseContext, "log">, CallContext {
  connections: EngineConnections;
  auditAppends: AuditAppends;
}
