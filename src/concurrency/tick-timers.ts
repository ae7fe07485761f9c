import { LONGEST_TIMER_MS, once } from './timers.js';

/** Repeats work until it is stopped. */
export interface Ticker {
  /** @returns how to stop it */
  every: (name: string, ms: number, work: () => void) => () => void;
}

/**
 * Timers of the engine's own. Only the tick is in the registry of `@nestjs/schedule`: the host's
 * ScheduleModule empties that when a shutdown begins, and what drains still needs its heartbeat.
 */
export function every(ms: number, work: () => void): () => void {
  const interval = setInterval(work, Math.min(ms, LONGEST_TIMER_MS));
  return () => clearInterval(interval);
}

/** The same, half a turn out of step with others of its length, so that they need not a connection each at once. */
export function everyOffBeat(ms: number, work: () => void): () => void {
  let stop = once(ms / 2, () => {
    work();
    stop = every(ms, work);
  });
  return () => stop();
}
