import { abortable } from "../../time/abortable.ts";
import { DomainError } from "../../errors.ts";

/** A right to use an engine: while it is held, the engine is not stopped unless `interrupted` fires first. */
export interface Hold extends Disposable {
  /** Fires when a verb will not wait any longer; its reason is the end that a turn should take. */
  readonly interrupted: AbortSignal;
  release(): void;
}

export type WhenBusy = "wait" | "interrupt" | "reject";

export interface CloseGateOptions {
  whenBusy: WhenBusy;
  /** How long `wait` waits before it interrupts. */
  deadlineMs: number;
  /** After `wait` has waited: interrupt the holders (the default), or give up with ENGINE_BUSY. */
  onDeadline?: "interrupt" | "give_up";
  /** What the holders are told. */
  reason: InterruptReason;
}
export const INTERRUPT_REASONS = ["ENGINE_STOPPED", "ENGINE_RESTARTED"] as const;
export type InterruptReason = (typeof INTERRUPT_REASONS)[number];

interface Usage {
  holders: Set<AbortController>;
  gates: number;
  changed: PromiseWithResolvers<void>;
}

/** Holders get this long to let go once they were interrupted; after that the verb goes on without them. */
const INTERRUPT_GRACE_MS = 5_000;

/**
 * Who uses which engine on this replica, and the gate that keeps new users out while a verb is under way.
 * Holds are in memory: with the process they end, and so do the calls that they stood for.
 */
export class EngineHolds {
  readonly #usages = new Map<string, Usage>();
  readonly #activity = new Map<string, number>();
  #gateEpoch = 0;

  /** Moves when any gate closes or opens: the same before a read and after it says that no verb came between. */
  get gateEpoch(): number {
    return this.#gateEpoch;
  }

  /** The instants of last use since this was last called, as ISO text by engine id. */
  takeActivity(): ReadonlyMap<string, string> {
    const activity = [...this.#activity].map(([id, ms]) => [id, new Date(ms).toISOString()] as const);
    this.#activity.clear();
    return new Map(activity);
  }

  /** Queues at a closed gate until it opens or the signal aborts (then throws its reason). */
  async acquire(engineId: string, signal: AbortSignal): Promise<Hold> {
    for (;;) {
      signal.throwIfAborted();
      const usage = this.#usage(engineId);
      if (usage.gates === 0) return this.#add(engineId, usage);
      await abortable(usage.changed.promise, signal);
    }
  }

  /** True while a verb keeps new holders out. */
  isGated(engineId: string): boolean {
    return (this.#usages.get(engineId)?.gates ?? 0) > 0;
  }

  count(engineId: string): number {
    return this.#usages.get(engineId)?.holders.size ?? 0;
  }

  /**
   * Keeps new holders out and returns once nobody holds the engine, or those who do were interrupted.
   * Disposing the result opens the gate. Throws ENGINE_BUSY for `reject` when somebody holds it.
   */
  async closeGate(engineId: string, options: CloseGateOptions): Promise<Disposable> {
    const usage = this.#usage(engineId);
    if (options.whenBusy === "reject") refuseBusy(usage);
    usage.gates += 1;
    this.#gateEpoch += 1;
    try {
      if (options.whenBusy === "wait") await untilIdle(usage, options.deadlineMs);
      if (options.onDeadline === "give_up" && options.whenBusy === "wait") refuseBusy(usage);
      for (const holder of usage.holders) holder.abort(options.reason);
      await untilIdle(usage, INTERRUPT_GRACE_MS);
    } catch (error) {
      this.#openGate(engineId, usage);
      throw error;
    }
    let open = false;
    return {
      [Symbol.dispose]: () => {
        if (open) return;
        open = true;
        this.#openGate(engineId, usage);
      },
    };
  }

  #usage(engineId: string): Usage {
    let usage = this.#usages.get(engineId);
    if (usage === undefined) {
      usage = { holders: new Set(), gates: 0, changed: Promise.withResolvers() };
      this.#usages.set(engineId, usage);
    }
    return usage;
  }

  #add(engineId: string, usage: Usage): Hold {
    const holder = new AbortController();
    usage.holders.add(holder);
    this.#activity.set(engineId, Date.now());
    const release = () => {
      if (!usage.holders.delete(holder)) return;
      this.#activity.set(engineId, Date.now());
      this.#notify(engineId, usage);
    };
    return { interrupted: holder.signal, release, [Symbol.dispose]: release };
  }

  #openGate(engineId: string, usage: Usage): void {
    usage.gates -= 1;
    this.#gateEpoch += 1;
    this.#notify(engineId, usage);
  }

  #notify(engineId: string, usage: Usage): void {
    const changed = usage.changed;
    usage.changed = Promise.withResolvers();
    if (usage.holders.size === 0 && usage.gates === 0) this.#usages.delete(engineId);
    changed.resolve();
  }
}

function refuseBusy(usage: Usage): void {
  if (usage.holders.size === 0) return;
  throw new DomainError("ENGINE_BUSY", `the engine is in use by ${usage.holders.size} call(s)`, {
    retryAfterMs: 1_000,
  });
}

async function untilIdle(usage: Usage, timeoutMs: number): Promise<void> {
  const timeout = AbortSignal.timeout(timeoutMs);
  while (usage.holders.size > 0 && !timeout.aborted) {
    await abortable(usage.changed.promise, timeout).catch(() => {
      // Out of patience: the loop's condition sees the aborted signal.
    });
  }
}
