import type { IdempotencyOwner, NewIdempotencyRecord } from "../../db/idempotency.ts";

export type RunningCall = Pick<NewIdempotencyRecord, "procedure" | "fingerprint">;

/**
 * The calls with an idempotency key that run in this replica. If a record in the database names this replica but no
 * such call runs here, the call of that record has ended while the database was out of reach. Then a retry may take
 * the record over.
 */
export class RunningCalls {
  readonly #calls = new Map<string, RunningCall>();

  /**
   * Enters the call under its key until `leave` is disposed. If another call already runs under that key, returns it
   * as `other` and enters nothing.
   */
  enter(
    { scope, key }: Pick<IdempotencyOwner, "scope" | "key">,
    call: RunningCall,
  ): { other: RunningCall } | { leave: Disposable } {
    const name = JSON.stringify([scope, key]);
    const other = this.#calls.get(name);
    if (other !== undefined) return { other };
    this.#calls.set(name, call);
    return { leave: { [Symbol.dispose]: () => this.#calls.delete(name) } };
  }
}
