import type { TRPCError } from "@trpc/server";
import type { DomainError } from "../../errors.ts";
import type { HeldBytes } from "./body-budget.ts";

export type BodyRefusal = DomainError | TRPCError;

/**
 * Owns what the service keeps for the body of one request. The response disposes it when it closes, which may happen at
 * any point of the reading. The held bytes are given back by `drop` only.
 */
export class RequestBody implements Disposable {
  /** Why the body was not read, although the caller is known. */
  refusal: BodyRefusal | undefined;
  /** Asks for the body. undefined: the client sends it without being asked. */
  sendContinue: (() => void) | undefined;
  #closed: AbortController | undefined;
  #isClosed = false;
  #isReading = false;
  #held: HeldBytes | undefined;

  /** The response has closed, so the sender cannot get an answer. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Aborts when the response closes. */
  get closed(): AbortSignal {
    this.#closed ??= new AbortController();
    if (this.#isClosed) this.#closed.abort();
    return this.#closed.signal;
  }

  /** The bytes belong to this body from now on. */
  keep(held: HeldBytes): void {
    this.#held = held;
  }

  /** Runs the reading. Until it ends it has a buffer, so the bytes count until then, also if the sender left. */
  async read(work: () => Promise<string>): Promise<string> {
    this.#isReading = true;
    try {
      return await work();
    } finally {
      this.#isReading = false;
      if (this.#isClosed || this.refusal !== undefined) this.drop();
    }
  }

  /** Gives the held bytes back. May be called more than once. */
  drop(): void {
    this.#held?.release();
    this.#held = undefined;
  }

  [Symbol.dispose](): void {
    this.#isClosed = true;
    this.#closed?.abort();
    if (!this.#isReading) this.drop();
  }
}
