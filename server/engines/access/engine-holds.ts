import { abortable } from "../../time/abortable.ts";
import { DomainError } from "../../errors.ts";
import { describeHolds, type Holder } from "./hold-view.ts";
import { KeptEngines } from "./kept-engines.ts";

/** A right to use an engine. While it is held, the engine is not stopped unless `interrupted` fires first. */
export interface Hold extends Disposable {
  /** Fires when an operation waits no longer. Its reason is an `InterruptReason`, the reason for a turn's end. */
  readonly interrupted: AbortSignal;
  release(): void;
  /** From now on the hold has this user. */
  passTo(holder: Holder): void;
}

export interface AcquireOptions {
  holder: Holder;
  /**
   * True: do not wait while the gate is closed. For a call that helps another holder to end: the answer to a turn that
   * waits for a person. It is asked anew at each try, because the operation goes on once that holder has ended.
   */
  passesGate?: (() => boolean) | undefined;
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

interface HeldBy {
  interruption: AbortController;
  holder: Holder;
}

/** The holds and closed gates of one engine. */
interface Entry {
  holders: Set<HeldBy>;
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
  readonly kept = new KeptEngines();
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
  async acquire(
    engineId: string,
    signal: AbortSignal,
    { holder, passesGate }: AcquireOptions,
  ): Promise<Hold> {
    for (;;) {
      signal.throwIfAborted();
      const entry = this.#entry(engineId);
      if (entry.gates === 0 || passesGate?.() === true) return this.#add(engineId, entry, holder);
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

  /** Why callers wait at the gate. undefined: the gate is open. */
  explainGate(engineId: string): string | undefined {
    const entry = this.#entries.get(engineId);
    if (entry === undefined || entry.gates === 0) return undefined;
    return entry.holders.size === 0
      ? "an operation on it is under way"
      : `an operation on it waits for ${describe(entry)}`;
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
    gate.use(this.kept.changing(engineId));
    gate.defer(() => {
      this.#openGate(engineId, entry);
    });
    if (whenBusy === "wait") await untilIdle(entry, options.deadlineMs);
    if (whenBusy === "wait" && onDeadline === "give_up") refuseBusy(entry);
    for (const { interruption } of entry.holders) interruption.abort(options.reason);
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

  #add(engineId: string, entry: Entry, holder: Holder): Hold {
    const held: HeldBy = { interruption: new AbortController(), holder };
    entry.holders.add(held);
    this.#activity.set(engineId, Date.now());
    const release = () => {
      if (!entry.holders.delete(held)) return;
      this.#activity.set(engineId, Date.now());
      this.#notify(engineId, entry);
    };
    const passTo = (next: Holder) => {
      held.holder = next;
    };
    return { interrupted: held.interruption.signal, release, passTo, [Symbol.dispose]: release };
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
  const advice =
    'wait for their ends, cancel the turns, or interrupt all (whenBusy "interrupt", or when "now")';
  throw new DomainError("ENGINE_BUSY", `the engine is in use by ${describe(entry)}: ${advice}`, {
    retryAfterMs: 1_000,
  });
}

function describe(entry: Entry): string {
  return describeHolds(Array.from(entry.holders, ({ holder }) => holder.toHoldView()));
}

async function untilIdle(entry: Entry, timeoutMs: number): Promise<void> {
  const timeout = AbortSignal.timeout(timeoutMs);
  while (entry.holders.size > 0 && !timeout.aborted) {
    await abortable(entry.changed.promise, timeout).catch(() => {
      // The time is up: the loop's condition sees it.
    });
  }
}
