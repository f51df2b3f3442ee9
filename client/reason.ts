import type { AppRouter } from "../server/api/routers/router.ts";
import type { TurnEnd } from "./turn-event.ts";

/** The `data` of the server's error replies. */
export type ErrorData = AppRouter["_def"]["_config"]["$types"]["errorShape"]["data"];
/** Why the server refuses a call. */
export type Reason = ErrorData["reason"];

/**
 * The reasons that only the client gives. It also gives two reasons of the server for answers of a gateway:
 * REQUEST_TOO_LARGE for a 413, and RATE_LIMITED for a 429.
 *
 * - CONNECTION_LOST: no replica answered for too long. The turn or the call may continue at the server.
 * - UNEXPECTED_ANSWER: something other than an Enginehouse answered, for instance a login page, a firewall or a
 *   redirect. The message names it. Another attempt gets the same answer.
 * - EVENTS_MISSING: the server no longer has some of the turn's events.
 * - CLIENT_CLOSED: `close` was called.
 */
export type ClientReason = "CONNECTION_LOST" | "UNEXPECTED_ANSWER" | "EVENTS_MISSING" | "CLIENT_CLOSED";

export type FailureReason = Reason | NonNullable<TurnEnd["reason"]> | ClientReason;
