import { DomainError } from "../errors.ts";
import type { Replica } from "./replica.ts";

const POLL_MS = 500;

/**
 * Refuses calls once the lease has expired. A hanging database answers neither the heartbeat nor the calls, so each
 * waiting call then fails with DATABASE_UNAVAILABLE. Its work continues, or its transaction undoes it.
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

  /** `reachesEngine`: no transaction can undo the work, so it fails with OUTCOME_UNKNOWN instead. */
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
    "the database stopped answering during the call: the engine may have handled it",
  );
}

function databaseUnavailable(): DomainError {
  return new DomainError("DATABASE_UNAVAILABLE", "the database does not answer", { retryAfterMs: 1_000 });
}
