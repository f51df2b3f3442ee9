import { isUtf8 } from "node:buffer";
import type { IncomingMessage } from "node:http";
import { TRPCError } from "@trpc/server";
import type { FastifyRequest } from "fastify";
import type { AppContext } from "../../compose.ts";
import { DomainError } from "../../errors.ts";
import { hasMoreValuesThan, JSON_MAX_VALUES } from "../../json/json-values.ts";
import { toOwner, type Caller } from "../../keys/caller.ts";
import { findEncodingRefusal } from "./body-encoding.ts";
import type { BodyBudget, HeldBytes, Refused } from "./body-budget.ts";
import type { CallerConnections } from "./caller-connections.ts";
import type { LargeBodies } from "./large-bodies.ts";
import { type BodyRefusal, RequestBody } from "./request-body.ts";
import type { RequestCaller } from "./request-caller.ts";

/** A larger body waits for its turn. */
const LARGE_BYTES = 256 * 1024;
const FIRST_CHUNKED_BYTES = 64 * 1024;
/** The rest of a refused body is read and dropped up to here, so that its sender reads the refusal. */
const MAX_DISCARDED_BYTES = 16 * 1024 * 1024;
const BUSY_RETRY_AFTER_MS = 1_000;

export interface BodyContext {
  app: { lease: Pick<AppContext["lease"], "run"> };
  budget: BodyBudget;
  largeBodies: Pick<LargeBodies, "enter">;
  connections: Pick<CallerConnections, "noteAnsweredEarly">;
}

export interface BodyToRead {
  request: Pick<FastifyRequest, "raw" | "headers" | "routeOptions" | "incoming">;
  payload: IncomingMessage;
  caller: Pick<RequestCaller, "authenticate">;
}

/** Stands for a body that is not read. Also valid as the inputs of a batch. */
const NO_INPUT = "{}";

/**
 * Reads the body of a caller whose key is accepted. Any other caller's body is dropped as it arrives, and its call gets
 * an empty input. Sets `incoming.refusal` if the body itself is refused.
 */
export async function readBody(ctx: BodyContext, body: BodyToRead): Promise<string> {
  const { request, payload } = body;
  const incoming = (request.incoming ??= new RequestBody());
  const length = toLength(request);
  if (length === 0) return "";
  const { bodyLimit } = request.routeOptions;
  if (length !== undefined && length > bodyLimit) {
    // More than we would drop: let fastify close the connection.
    if (length > MAX_DISCARDED_BYTES) throw tooLarge(bodyLimit);
    return refuseBody(ctx, body, { incoming, refusal: tooLarge(bodyLimit) });
  }
  const refusal = findEncodingRefusal(request.headers);
  if (refusal !== undefined) return refuseBody(ctx, body, { incoming, refusal });
  const caller = await findCaller(ctx, body);
  if (incoming.isClosed) return NO_INPUT;
  if (caller === undefined) return discard(ctx, body);
  const owner = toOwner(caller);
  // If the sender leaves, the reading rejects. The error is logged at the level debug, because no reply can carry it.
  return incoming.read(async () => {
    const received = await receiveHeld(ctx, { incoming, payload, owner, length, maxBytes: bodyLimit });
    if (received instanceof DomainError) return refuseBody(ctx, body, { incoming, refusal: received });
    if (received.length > LARGE_BYTES) await ctx.largeBodies.enter(owner, incoming.closed);
    return decode(received);
  });
}

interface HeldReception extends Omit<Reception, "held"> {
  incoming: RequestBody;
  payload: IncomingMessage;
  owner: string;
}

/** Returns the body, or why it is refused. */
async function receiveHeld(ctx: BodyContext, reception: HeldReception): Promise<Buffer | DomainError> {
  const { incoming, payload, owner, length, maxBytes } = reception;
  const held = ctx.budget.hold(owner, length ?? FIRST_CHUNKED_BYTES);
  if (typeof held === "string") return noRoom(held);
  incoming.keep(held);
  incoming.sendContinue?.();
  const received = await receive(payload, { length, maxBytes, held });
  if (typeof received !== "string") return received;
  return received === "too large" ? tooLarge(maxBytes) : noRoom(received);
}

/** undefined: the body has no stated length, and comes in chunks. */
function toLength({ headers }: Pick<FastifyRequest, "headers">): number | undefined {
  if (headers["transfer-encoding"] !== undefined) return undefined;
  return Number(headers["content-length"] ?? 0);
}

/** undefined: no key, or one that is not accepted. The call itself answers why, in the form of its protocol. */
async function findCaller(ctx: BodyContext, { caller }: BodyToRead): Promise<Caller | undefined> {
  try {
    return await ctx.app.lease.run(async () => caller.authenticate());
  } catch {
    // The call asks for its caller again and gets the same error.
    return undefined;
  }
}

interface RefusedBody {
  incoming: RequestBody;
  refusal: BodyRefusal;
}

function refuseBody(ctx: BodyContext, body: BodyToRead, { incoming, refusal }: RefusedBody): string {
  incoming.refusal = refusal;
  return discard(ctx, body);
}

/** Drops the rest of the body as it arrives, for a sender who has its answer or gets it now. */
function discard({ connections }: BodyContext, { request, payload }: BodyToRead): string {
  const { socket } = request.raw;
  connections.noteAnsweredEarly(socket);
  let leftBytes = MAX_DISCARDED_BYTES;
  payload.on("data", (chunk: Buffer) => {
    leftBytes -= chunk.length;
    if (leftBytes < 0) socket.destroy();
  });
  payload.on("error", () => undefined);
  payload.resume();
  return NO_INPUT;
}

interface Reception {
  length: number | undefined;
  maxBytes: number;
  held: HeldBytes;
}

/** Rejects if the sender leaves. */
async function receive(
  payload: IncomingMessage,
  reception: Reception,
): Promise<Buffer | "too large" | Refused> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | "too large" | Refused>();
  const buffer = new BodyBuffer(reception);
  const onData = (chunk: Buffer) => {
    const failure = buffer.append(chunk);
    if (failure !== undefined) resolve(failure);
  };
  const onEnd = () => resolve(buffer.bytes);
  payload.on("data", onData);
  payload.on("end", onEnd);
  payload.on("error", reject);
  // Its error came before we listened.
  if (payload.destroyed) reject(new Error("the sender left"));
  try {
    return await promise;
  } finally {
    payload.off("data", onData);
    payload.off("end", onEnd);
    payload.off("error", reject);
  }
}

/** The received bytes in one piece. Pieces that are joined at the end would need the memory twice. */
class BodyBuffer {
  readonly #reception: Reception;
  #buffer: Buffer | undefined;
  #length = 0;

  constructor(reception: Reception) {
    this.#reception = reception;
  }

  get bytes(): Buffer {
    return this.#buffer?.subarray(0, this.#length) ?? Buffer.alloc(0);
  }

  append(chunk: Buffer): "too large" | Refused | undefined {
    const { length, maxBytes, held } = this.#reception;
    const needed = this.#length + chunk.length;
    if (needed > maxBytes) return "too large";
    const size = this.#toSize(needed);
    // The system gives memory to a buffer as it is filled, so only what has arrived counts.
    const refused = held.grow(length === undefined ? size : needed);
    if (refused !== undefined) return refused;
    if (chunk.length === length) this.#buffer = chunk;
    else chunk.copy(this.#makeRoom(size), this.#length);
    this.#length = needed;
    return undefined;
  }

  #toSize(needed: number): number {
    const { length, maxBytes } = this.#reception;
    const current = this.#buffer?.length ?? 0;
    if (length !== undefined || current >= needed) return length ?? current;
    return Math.min(maxBytes, Math.max(FIRST_CHUNKED_BYTES, needed, 2 * current));
  }

  #makeRoom(size: number): Buffer {
    const current = this.#buffer;
    if (current !== undefined && current.length >= size) return current;
    const next = Buffer.allocUnsafeSlow(size);
    current?.copy(next, 0, 0, this.#length);
    this.#buffer = next;
    return next;
  }
}

function decode(bytes: Buffer): string {
  // Decoding replaces invalid UTF-8 by U+FFFD, which would silently change a caller's text. So refuse it.
  if (!isUtf8(bytes)) throw new TRPCError({ code: "BAD_REQUEST", message: "the body is not valid UTF-8" });
  // Fewer bytes cannot hold more values.
  if (bytes.length > JSON_MAX_VALUES && hasMoreValuesThan(bytes, JSON_MAX_VALUES)) {
    throw new DomainError(
      "REQUEST_TOO_LARGE",
      `the request has more than ${JSON_MAX_VALUES} JSON values, where each key counts as one: send fewer`,
    );
  }
  return bytes.toString("utf8");
}

function tooLarge(maxBytes: number): DomainError {
  return new DomainError(
    "REQUEST_TOO_LARGE",
    `the request body is larger than this path allows: send at most ${maxBytes} bytes`,
  );
}

function noRoom(refused: Refused): DomainError {
  const whose = refused === "caller" ? "your other requests" : "other requests";
  return new DomainError(
    "RATE_LIMITED",
    `${whose} hold all the memory that there is for request bodies: send this request again later`,
    { retryAfterMs: BUSY_RETRY_AFTER_MS },
  );
}
