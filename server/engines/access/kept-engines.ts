import { LRUCache } from "lru-cache";
import type { EngineUser, UsableEngine } from "../../../db/engines.ts";

/** A row may be this old. Changes by this replica end it at once, so the time only bounds changes made by hand. */
const KEEP_MS = 2_000;
const MAX_KEPT = 10_000;

interface Kept {
  engine: UsableEngine;
  untilMs: number;
}

/**
 * The rows of running engines that were called a moment ago. A call to such an engine needs no read of the database.
 *
 * Every change of an engine by this replica is announced by `changing`: while a gate is closed, and while the engine is
 * reconciled. Until the change has ended, no row of the engine is kept. A read that overlaps the end of any change is not
 * kept either, because it may have seen the row before the change.
 */
export class KeptEngines {
  readonly #kept = new LRUCache<string, Kept>({
    max: MAX_KEPT,
    dispose: ({ engine }) => this.#users.delete(engine.id),
  });
  /** The key of each kept row, by engine id. */
  readonly #users = new Map<string, string>();
  /** How many changes of each engine are under way. */
  readonly #changing = new Map<string, number>();
  #endedChanges = 0;

  /** Counts the changes that have ended. Take it before a read whose result shall be kept. */
  get mark(): number {
    return this.#endedChanges;
  }

  find(user: EngineUser, nowMs: number): UsableEngine | undefined {
    const kept = this.#kept.get(toKey(user));
    // A clock that was set back makes no row last longer.
    const isFresh = kept !== undefined && nowMs < kept.untilMs && kept.untilMs <= nowMs + KEEP_MS;
    return isFresh ? kept.engine : undefined;
  }

  /** `mark` is that of the time before the read. Does nothing if the engine does not run, or may have changed since. */
  keep(user: EngineUser, engine: UsableEngine, { mark, nowMs }: { mark: number; nowMs: number }): void {
    const isUsable = engine.status === "running" && engine.desired === "running";
    if (!isUsable || mark !== this.#endedChanges || this.#changing.has(engine.id)) return;
    const key = toKey(user);
    this.#kept.set(key, { engine, untilMs: nowMs + KEEP_MS });
    this.#users.set(engine.id, key);
  }

  forget(engineId: string): void {
    const key = this.#users.get(engineId);
    if (key !== undefined) this.#kept.delete(key);
  }

  /** The row of the engine may change from now on, until the result is disposed. */
  changing(engineId: string): Disposable {
    this.forget(engineId);
    this.#changing.set(engineId, (this.#changing.get(engineId) ?? 0) + 1);
    return {
      [Symbol.dispose]: () => {
        this.#endedChanges += 1;
        const left = (this.#changing.get(engineId) ?? 1) - 1;
        if (left === 0) this.#changing.delete(engineId);
        else this.#changing.set(engineId, left);
      },
    };
  }
}

function toKey({ productId, userId }: EngineUser): string {
  return `${productId}/${userId}`;
}
