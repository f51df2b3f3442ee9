import { abortable } from "../../time/abortable.ts";
import { DomainError } from "../../errors.ts";

/** A right to use an engine. While it is held, the engine is not stopped unless `interrupted` fires first. */
export interface Hold extends Disposable {
  /** Fires when an operation waits no longer. Its reason is an `InterruptReason`, the reason for a turn's end. */
  readonly interrupted: AbortSignal;
  release(): void;
}

export type WhenBusy = "wait" | "interrupt" | "reject";

export interface CloseGateOptions {
  whenBusy: WhenBusy;
  /** How long `wait` waits for the holders. */
  deadlineMs: number;
  /** After the deadline of `wait`: interrupt the holders (the default), or give up with ENGINE_BUSY. */
  onDeadline?: "interrupt" | "give_up";
  /** The holders get it as the reason of `interrupted`. */
  reason: InterruptReason;
}
export const INTERRUPT_REASONS = ["ENGINE_STOPPED", "ENGINE_RESTARTED"] as const;
export type InterruptReason = (typeof INTERRUPT_REASONS)[number];

/** The holds and closed gates of one engine. */
interface Entry {
  holders: Set<AbortController>;
  gates: number;
  changed: PromiseWithResolvers<void>;
}

/** Interrupted holders get this long to release; after that the operation goes on without them. */
const INTERRUPT_GRACE_MS = 5_000;

/**
 * The holds on engines in this replica, and the gates that keep new holders out during operations.
 * Holds are in memory: they end with the process, as do the calls that they protect.
 */
export class EngineHolds {
  readonly #entries = new Map<string, Entry>();
  readonly #activity = new Map<string, number>();
  #gateChanges = 0;

  /** Counts how often any gate closed or opened. Equal before and after a read: no operation came in between. */
  get gateChanges(): number {
    return this.#gateChanges;
  }

  /** When each engine was last held, as ISO text by engine id; only what changed since the last call. */
  takeActivity(): ReadonlyMap<string, string> {
    const activity = [...this.#activity].map(([id, ms]) => [id, new Date(ms).toISOString()] as const);
    this.#activity.clear();
    return new Map(activity);
  }

  /** Waits while the gate is closed. Throws the signal's reason when it aborts first. */
  async acquire(engineId: string, signal: AbortSignal): Promise<Hold> {
    for (;;) {
      signal.throwIfAborted();
      const entry = this.#entry(engineId);
      if (entry.gates === 0) return this.#add(engineId, entry);
      await abortable(entry.changed.promise, signal);
    }
  }

  /** True while an operation keeps new holders out. */
  isGated(engineId: string): boolean {
    return (this.#entries.get(engineId)?.gates ?? 0) > 0;
  }

  count(engineId: string): number {
    return this.#entries.get(engineId)?.holders.size ?? 0;
  }

  /**
   * Keeps new holders out, and returns once the engine has no holders or the holders were interrupted.
   * Disposing the result opens the gate. Throws ENGINE_BUSY for `reject` and `give_up` while there are holders.
   */
  async closeGate(engineId: string, options: CloseGateOptions): Promise<Disposable> {
    const { whenBusy, onDeadline } = options;
    const entry = this.#entry(engineId);
    if (whenBusy === "reject") refuseBusy(entry);
    entry.gates += 1;
    this.#gateChanges += 1;
    using gate = new DisposableStack();
    gate.defer(() => {
      this.#openGate(engineId, entry);
    });
    if (whenBusy === "wait") await untilIdle(entry, options.deadlineMs);
    if (whenBusy === "wait" && onDeadline === "give_up") refuseBusy(entry);
    for (const holder of entry.holders) holder.abort(options.reason);
    await untilIdle(entry, INTERRUPT_GRACE_MS);
    return gate.move();
  }

  #entry(engineId: string): Entry {
    let entry = this.#entries.get(engineId);
    if (entry === undefined) {
      entry = { holders: new Set(), gates: 0, changed: Promise.withResolvers() };
      this.#entries.set(engineId, entry);
    }
    return entry;
  }

  #add(engineId: string, entry: Entry): Hold {
    const holder = new AbortController();
    entry.holders.add(holder);
    this.#activity.set(engineId, Date.now());
    const release = () => {
      if (!entry.holders.delete(holder)) return;
      this.#activity.set(engineId, Date.now());
      this.#notify(engineId, entry);
    };
    return { interrupted: holder.signal, release, [Symbol.dispose]: release };
  }

  #openGate(engineId: string, entry: Entry): void {
    entry.gates -= 1;
    this.#gateChanges += 1;
    this.#notify(engineId, entry);
  }

  #notify(engineId: string, entry: Entry): void {
    const changed = entry.changed;
    entry.changed = Promise.withResolvers();
    if (entry.holders.size === 0 && entry.gates === 0) this.#entries.delete(engineId);
    changed.resolve();
  }
}

function refuseBusy(entry: Entry): void {
  if (entry.holders.size === 0) return;
  throw new DomainError("ENGINE_BUSY", `the engine is in use by ${entry.holders.size} call(s)`, {
    retryAfterMs: 1_000,
  });
}

async function untilIdle(entry: Entry, timeoutMs: number): Promise<void> {
  const timeout = AbortSignal.timeout(timeoutMs);
  while (entry.holders.size > 0 && !timeout.aborted) {
    await abortable(entry.changed.promise, timeout).catch(() => {
      // The time is up: the loop's condition sees it.
    });
  }
}
