import type { Rate } from "../../admission/rate-limits.ts";
import type { AppContext } from "../../compose.ts";
import type { EncodeBatch, ReaderConnection } from "../turn-stream/stream-turn.ts";
import type { RequestCaller } from "../http/request-caller.ts";
import type { StandIns } from "./stand-ins.ts";
import type { Readiness } from "../http/readiness.ts";

/** What all calls of one HTTP request share. */
export interface RequestContext extends RequestCaller {
  app: AppContext;
  requestId: string;
  /** The JSON text of the input of one call, by its position in the batch. */
  findInputText: (batchIndex: number) => string | undefined;
  /** For JSON text that goes into the reply as it is. */
  standIns: StandIns;
  /** Shows the caller what is left of the product's rate limits. */
  noteRates: (rates: readonly Rate[]) => void;
  readiness(): Promise<Readiness>;
  /** Aborts when the server closes. Open streams then end without an end event, so their readers resume elsewhere. */
  closing: AbortSignal;
  /** How many streams a product may have open here, if its policy does not say. */
  maxOpenStreams: number;
  /** How the transport writes the batches of a subscription. */
  encode: EncodeBatch;
  /** The reader's connection. undefined: the call is no subscription. */
  connection?: ReaderConnection;
}
