import { initTRPC } from "@trpc/server";
import type { Access } from "../../admission/admit-call.ts";
import type { Reason } from "../../errors.ts";
import { toTrpcErrorShape } from "./api-error.ts";
import type { RequestContext } from "./request-context.ts";

export interface ProcedureMeta {
  /** Who may make the call. The procedure builders set it. Absent: everyone. */
  access?: Access;
  /** What the procedure does, in one sentence, for the API document. */
  summary?: string;
  /** What a caller must know beyond the summary and the fields. */
  description?: string;
  /** The reasons of its own refusals. The document adds those of every call, see `toReasons`. */
  reasons?: readonly Reason[];
  /** A mutation that begins no work, and so is served while the replica drains. */
  whileDraining?: boolean;
  /** A subscription that begins work before it streams. */
  beginsWork?: boolean;
  /** Starts the turn `turnId` of its input, which the product's rate limit for turns counts. */
  startsTurn?: boolean;
  /** Its admission reads the engine of the user in its input. With `autoProvision` it needs the scope lifecycle, too. */
  admitsEngine?: boolean;
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
