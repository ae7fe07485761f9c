/** Longer timeouts fire at once in Node. */
export const LONGEST_TIMER_MS = 2 ** 31 - 1;

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

/** @returns how to stop it */
export function once(
  ms: number,
  work: () => void,
  { keepsAlive = true } = {},
): () => void {
  const timeout = setTimeout(work, Math.min(ms, LONGEST_TIMER_MS));
  if (!keepsAlive) timeout.unref();
  return () => clearTimeout(timeout);
}

/** Resolves with the work, or when the time is up. Never rejects. */
export async function within(
  ms: number,
  work: Promise<unknown>,
): Promise<void> {
  let cancel = () => {};
  const deadline = new Promise<void>((resolve) => {
    cancel = once(ms, resolve);
  });
  await Promise.race([work.catch(() => undefined), deadline]);
  cancel();
}
