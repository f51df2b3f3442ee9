import type { AppContext } from "../../compose.ts";
import type { RequestCaller } from "../http/request-caller.ts";
import type { Readiness } from "../http/readiness.ts";

/** What every call of one HTTP request shares. */
export interface RequestContext extends RequestCaller {
  app: AppContext;
  requestId: string;
  readiness(): Promise<Readiness>;
  /** Aborts when open streams shall end without an end, so that their readers go on elsewhere. */
  closing: AbortSignal;
}
