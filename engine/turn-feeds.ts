import { setTimeout as sleep } from "node:timers/promises";

/** Wakes the replays that follow a turn while it runs. The events themselves are in the brain. */
export class TurnFeeds {
  /** The turns that run. undefined: no replay waits for the turn's next event. */
  readonly #feeds = new Map<string, PromiseWithResolvers<void> | undefined>();
  readonly #replays = new Set<Promise<void>>();

  open(turnId: string): void {
    this.#feeds.set(turnId, undefined);
  }

  /** The brain has a new event of the turn. */
  announce(turnId: string): void {
    const waiting = this.#feeds.get(turnId);
    if (waiting === undefined) return;
    this.#feeds.set(turnId, undefined);
    waiting.resolve();
  }

  /** The brain has the last event of the turn. */
  close(turnId: string): void {
    this.announce(turnId);
    this.#feeds.delete(turnId);
  }

  /**
   * Resolves with true at the next event of the turn, and with false if the turn has ended. Call it without an await after
   * the last read of the brain.
   */
  async next(turnId: string): Promise<boolean> {
    if (!this.#feeds.has(turnId)) return false;
    const waiting = this.#feeds.get(turnId) ?? Promise.withResolvers<void>();
    this.#feeds.set(turnId, waiting);
    await waiting.promise;
    return true;
  }

  /** A replay reads the brain, which must stay open for it. */
  track(replay: Promise<void>): void {
    this.#replays.add(replay);
    const forget = (): void => void this.#replays.delete(replay);
    replay.then(forget, forget);
  }

  async allEnded(): Promise<void> {
    await Promise.allSettled(this.#replays);
  }

  async allEndedWithin(ms: number): Promise<void> {
    const timer = new AbortController();
    const late = sleep(ms, undefined, { signal: timer.signal }).catch(() => undefined);
    await Promise.race([this.allEnded(), late]);
    timer.abort();
  }
}
