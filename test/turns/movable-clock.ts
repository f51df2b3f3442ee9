import { type Clock, systemClock } from "../../server/time/clock.ts";

/** The system's clock, but that whoever is to be called back after a while is called when a test says that it is over. */
export interface MovableClock extends Clock {
  advance(ms: number): void;
}

export function openMovableClock(): MovableClock {
  const waiting = new Set<{ at: number; callback: () => void }>();
  let aheadMs = 0;
  const now = () => systemClock.now() + aheadMs;
  return {
    ...systemClock,
    now,
    after: (ms, callback) => {
      const one = { at: now() + ms, callback };
      waiting.add(one);
      return () => waiting.delete(one);
    },
    advance: (ms) => {
      aheadMs += ms;
      for (const one of waiting) {
        if (one.at > now()) continue;
        waiting.delete(one);
        one.callback();
      }
    },
  };
}
