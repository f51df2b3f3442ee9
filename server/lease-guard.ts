import { DomainError } from "./errors.ts";
import type { Replica } from "./replica.ts";

const POLL_MS = 500;

/**
 * Bounds calls by the lease: a database that hangs answers neither them nor the heartbeat, so when the lease is lost
 * every call that waits is answered DATABASE_UNAVAILABLE. What it began goes on or is undone by its transaction.
 */
export class LeaseGuard implements Disposable {
  readonly #replica: Replica;
  readonly #waiting = new Set<(error: DomainError) => void>();
  readonly #timer: NodeJS.Timeout;

  constructor(replica: Replica) {
    this.#replica = replica;
    this.#timer = setInterval(() => {
      if (!this.#replica.holdsLease()) this.#refuseAll();
    }, POLL_MS);
    this.#timer.unref();
  }

  async run<T>(work: () => Promise<T>): Promise<T> {
    if (!this.#replica.holdsLease()) throw databaseUnavailable();
    const lost = Promise.withResolvers<never>();
    this.#waiting.add(lost.reject);
    try {
      return await Promise.race([work(), lost.promise]);
    } finally {
      this.#waiting.delete(lost.reject);
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #refuseAll(): void {
    for (const refuse of this.#waiting) refuse(databaseUnavailable());
  }
}

function databaseUnavailable(): DomainError {
  return new DomainError("DATABASE_UNAVAILABLE", "the database does not answer", { retryAfterMs: 1_000 });
}
