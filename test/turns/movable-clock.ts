import { type Clock, systemClock } from "../../server/time/clock.ts";

/** The system clock, but callbacks of `after` come when the test advances the clock. */
export interface MovableClock extends Clock {
  advance(ms: number): void;
}

export function openMovableClock(): MovableClock {
  const timers = new Set<{ at: number; callback: () => void }>();
  let aheadMs = 0;
  const now = () => systemClock.now() + aheadMs;
  return {
    ...systemClock,
    now,
    after: (ms, callback) => {
      const one = { at: now() + ms, callback };
      timers.add(one);
      return () => timers.delete(one);
    },
    advance: (ms) => {
      aheadMs += ms;
      for (const one of timers) {
        if (one.at > now()) continue;
        timers.delete(one);
        one.callback();
      }
    },
  };
}
