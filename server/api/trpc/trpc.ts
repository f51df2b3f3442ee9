import { initTRPC } from "@trpc/server";
import { toTrpcErrorShape } from "./api-error.ts";
import type { RequestContext } from "./request-context.ts";

export interface ProcedureMeta {
  /** A mutation that begins no work, and so goes on while the process drains. */
  whileDraining?: boolean;
  /** A subscription that begins work before it streams. */
  beginsWork?: boolean;
  /** A mutation whose effect on the engine cannot be taken back. */
  reachesEngine?: boolean;
}

/** tRPC fails before it has a context when the request itself is broken. */
const requestIds = new WeakMap<Error, string>();

/** Lets an error tell its request's id although no context was made. */
export function rememberRequestId(error: Error, requestId: string): void {
  requestIds.set(error, requestId);
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
        requestId: ctx?.requestId ?? requestIds.get(error) ?? null,
      }),
  });
