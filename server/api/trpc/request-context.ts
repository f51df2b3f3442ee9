import type { AppContext } from "../../compose.ts";
import type { RequestCaller } from "../http/request-caller.ts";
import type { Readiness } from "../http/readiness.ts";

/** What all calls of one HTTP request share. */
export interface RequestContext extends RequestCaller {
  app: AppContext;
  requestId: string;
  readiness(): Promise<Readiness>;
  /** Aborts when the server closes. Open streams then end without an end event, so their readers resume elsewhere. */
  closing: AbortSignal;
}
