import type { EngineStatus } from "./engines/model/engine-status.ts";
import type { DroppedLines } from "./log-output.ts";

/** Receives what a Metrics object reports. A method must not throw: it runs in the middle of the domain's work. */
export interface MetricsListener {
  /** After the commit. `from` is null for a new engine, `to` is null for a destroyed one. */
  statusMoved?(from: EngineStatus | null, to: EngineStatus | null): void;
  loopTicked?(tick: LoopTick): void;
  requestEnded?(request: EndedRequest): void;
  /** Once the log's output works again. */
  logLinesDropped?(lines: DroppedLines): void;
}

export interface LoopTick {
  loop: string;
  durationMs: number;
  failed: boolean;
}

export interface EndedRequest {
  /** A tRPC procedure, or an HTTP route such as `GET /readyz`. */
  route: string;
  /** `ok`, or the reason of the failure. */
  outcome: string;
  durationMs: number;
}

/** Passes measurements to its subscribers, for instance an exporter. Without subscribers a call costs next to nothing. */
export class Metrics {
  readonly #listeners = new Set<MetricsListener>();

  /** Disposing the result ends the subscription. */
  subscribe(listener: MetricsListener): Disposable {
    this.#listeners.add(listener);
    return { [Symbol.dispose]: () => void this.#listeners.delete(listener) };
  }

  statusMoved(from: EngineStatus | null, to: EngineStatus | null): void {
    for (const listener of this.#listeners) listener.statusMoved?.(from, to);
  }

  loopTicked(tick: LoopTick): void {
    for (const listener of this.#listeners) listener.loopTicked?.(tick);
  }

  requestEnded(request: EndedRequest): void {
    for (const listener of this.#listeners) listener.requestEnded?.(request);
  }

  logLinesDropped(lines: DroppedLines): void {
    for (const listener of this.#listeners) listener.logLinesDropped?.(lines);
  }
}
