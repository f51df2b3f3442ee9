import { initTRPC } from "@trpc/server";
import { toTrpcErrorShape } from "./api-error.ts";
import type { RequestContext } from "./request-context.ts";

export interface ProcedureMeta {
  /** A mutation that begins no work, and so is served while the replica drains. */
  whileDraining?: boolean;
  /** A subscription that begins work before it streams. */
  beginsWork?: boolean;
  /** A mutation that may have an effect in the engine that no transaction undoes. */
  reachesEngine?: boolean;
}

/** A request that is broken fails before tRPC has a context, so its error carries the request's id. */
interface ErrorOfRequest extends Error {
  requestId?: string;
}

export function addRequestId(error: ErrorOfRequest, requestId: string): void {
  error.requestId = requestId;
}

export const t = initTRPC
  .context<RequestContext>()
  .meta<ProcedureMeta>()
  .create({
    isDev: false,
    isServer: true,
    errorFormatter: ({ error, ctx, path }) =>
      toTrpcErrorShape(error, {
        path: path ?? null,
        requestId: ctx?.requestId ?? (error as ErrorOfRequest).requestId ?? null,
      }),
  });
