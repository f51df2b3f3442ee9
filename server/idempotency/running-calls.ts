interface RunningCall {
  procedure: string;
  fingerprint: string;
}

/**
 * The calls with an idempotency key that run in this process. If the database has a record of this replica and no such
 * call runs here, the record was left behind: its call ended while the database could not be written.
 */
export class RunningCalls {
  readonly #calls = new Map<string, RunningCall>();

  /**
   * Enters the call under its key until the result is disposed. If a call runs under that key already, returns that one
   * as `other` and enters nothing.
   */
  enter(
    { scope, key }: { scope: string; key: string },
    call: RunningCall,
  ): { other: RunningCall } | { leave: Disposable } {
    const name = JSON.stringify([scope, key]);
    const other = this.#calls.get(name);
    if (other !== undefined) return { other };
    this.#calls.set(name, call);
    return { leave: { [Symbol.dispose]: () => this.#calls.delete(name) } };
  }
}
