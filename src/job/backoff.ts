import { toMilliseconds, type Duration } from './duration.js';
import { BildadConfigError } from './errors.js';

/** A backoff that can be stored: no delay, a fixed delay, or a growing one. */
export type BackoffData =
  | 'none'
  | Duration
  | { type: 'fixed'; delay: Duration }
  | {
      type: 'exponential';
      /** Before the first retry; doubled for each further one. Default 1 s. */
      delay?: Duration;
      /** Default 1 h. */
      maxDelay?: Duration;
      /** The random share of the delay, from 0 to 1. Default 0.5. */
      jitter?: number;
    };

/**
 * Called after a failed run; returns the delay before the next one.
 * @param retry 0 after the first run
 * @param error what the handler threw
 */
export type BackoffFunction = (retry: number, error: unknown) => Duration;

export type Backoff = BackoffData | BackoffFunction;

const FIRST_DELAY_MS = 1_000;
const MAX_DELAY_MS = 3_600_000;
const JITTER = 0.5;
/** Enough to reach any `maxDelay`. More doublings reach Infinity, and 0 times Infinity is NaN. */
const MAX_DOUBLINGS = 64;

/**
 * The delay before the next run, in milliseconds. Jitter only shortens it, so `maxDelay` is a true maximum. A backoff
 * from the database is checked here: an operator may have written anything.
 * @param retry how many retries the runs before have used up: 0 after the first run
 * @param random from 0 to 1, an argument so that the function stays pure
 * @throws BildadConfigError when the backoff is invalid, and what a backoff function throws
 */
export function backoffDelay(
  backoff: Backoff,
  retry: number,
  error: unknown,
  random: number,
): number {
  if (typeof backoff === 'function') {
    const delay: unknown = backoff(retry, error);
    // An async backoff is refused below; its rejection must not become an unhandled one.
    if (delay instanceof Promise) delay.catch(() => undefined);
    return toMilliseconds(delay, 'backoff()');
  }
  if (backoff === 'none') return 0;
  if (typeof backoff !== 'object') return toMilliseconds(backoff, 'backoff');
  if (backoff.type === 'fixed') return toMilliseconds(backoff.delay, 'backoff.delay');
  const first = toMilliseconds(backoff.delay ?? FIRST_DELAY_MS, 'backoff.delay');
  const max = toMilliseconds(backoff.maxDelay ?? MAX_DELAY_MS, 'backoff.maxDelay');
  const jitter: unknown = backoff.jitter ?? JITTER;
  if (typeof jitter !== 'number' || !(jitter >= 0 && jitter <= 1))
    throw new BildadConfigError('backoff.jitter', 'must be a number from 0 to 1', { got: jitter });
  const full = Math.min(first * 2 ** Math.min(retry, MAX_DOUBLINGS), max);
  return Math.round(full * (1 - jitter * random));
}
