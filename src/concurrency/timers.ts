import { setTimeout as pause } from 'node:timers/promises';

/** Node fires longer timeouts at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** Repeats work until it is stopped. */
export interface Ticker {
  /** @returns a function that stops it */
  every: (name: string, ms: number, work: () => void) => () => void;
}

/** @returns a function that cancels it */
export function runAfter(ms: number, work: () => void, { keepsAlive = true } = {}): () => void {
  const timeout = setTimeout(work, Math.min(ms, MAX_TIMER_MS));
  if (!keepsAlive) timeout.unref();
  return () => clearTimeout(timeout);
}

/**
 * For the engine's own timers. Only the tick is in the registry of `@nestjs/schedule`: the host's
 * ScheduleModule empties that when a shutdown begins, and a node that drains needs its heartbeat.
 * @returns a function that stops it
 */
export function runEvery(ms: number, work: () => void): () => void {
  const interval = setInterval(work, Math.min(ms, MAX_TIMER_MS));
  return () => clearInterval(interval);
}

/** Like `runEvery`, shifted by half an interval: timers of one length do not need a connection at the same time. */
export function runEveryShifted(ms: number, work: () => void): () => void {
  let stop = runAfter(ms / 2, () => {
    work();
    stop = runEvery(ms, work);
  });
  return () => stop();
}

/** Resolves when the work has settled, or after `ms`. Never rejects. */
export async function waitAtMost(ms: number, work: Promise<unknown>): Promise<void> {
  let cancel = () => {};
  const deadline = new Promise<void>((resolve) => {
    cancel = runAfter(ms, resolve);
  });
  await Promise.race([work.catch(() => undefined), deadline]);
  cancel();
}

/** @throws the signal's reason if it aborts before the work is done */
export async function unlessAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  signal.throwIfAborted();
  let abort = () => {};
  const aborted = new Promise<never>((_resolve, reject) => {
    abort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

const FIRST_DELAY_MS = 50;
const MAX_DELAY_MS = 1_000;

/** Waits before another attempt, longer from attempt to attempt. @returns false when the signal aborts */
export async function waitBeforeRetry(attempt: number, giveUp: AbortSignal): Promise<boolean> {
  const delayMs = Math.min(FIRST_DELAY_MS * 2 ** attempt, MAX_DELAY_MS);
  try {
    await pause(delayMs * (0.5 + Math.random() / 2), undefined, { signal: giveUp });
    return true;
  } catch {
    return false;
  }
}
