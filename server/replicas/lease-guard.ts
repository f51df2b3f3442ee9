import { DomainError } from "../errors.ts";
import type { Replica } from "./replica.ts";

const POLL_MS = 500;

/**
 * Bounds calls by the lease: a database that hangs answers neither them nor the heartbeat, so when the lease is lost
 * every call that waits is answered DATABASE_UNAVAILABLE. What it began goes on or is undone by its transaction.
 */
export class LeaseGuard implements Disposable {
  readonly #replica: Pick<Replica, "holdsLease">;
  readonly #waiting = new Set<() => void>();
  readonly #timer: NodeJS.Timeout;

  constructor(replica: Pick<Replica, "holdsLease">) {
    this.#replica = replica;
    this.#timer = setInterval(() => {
      if (!this.#replica.holdsLease()) this.#refuseAll();
    }, POLL_MS);
    this.#timer.unref();
  }

  /** `reachesEngine`: the work may have had an effect that no transaction undoes, so it ends OUTCOME_UNKNOWN. */
  async run<T>(work: () => Promise<T>, { reachesEngine = false } = {}): Promise<T> {
    if (!this.#replica.holdsLease()) throw databaseUnavailable();
    const lost = Promise.withResolvers<never>();
    const refuse = () => {
      lost.reject(reachesEngine ? outcomeUnknown() : databaseUnavailable());
    };
    this.#waiting.add(refuse);
    try {
      return await Promise.race([work(), lost.promise]);
    } finally {
      this.#waiting.delete(refuse);
    }
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #refuseAll(): void {
    for (const refuse of this.#waiting) refuse();
  }
}

function outcomeUnknown(): DomainError {
  return new DomainError(
    "OUTCOME_UNKNOWN",
    "the database went away during the call; the engine may have had it",
  );
}

function databaseUnavailable(): DomainError {
  return new DomainError("DATABASE_UNAVAILABLE", "the database does not answer", { retryAfterMs: 1_000 });
}
