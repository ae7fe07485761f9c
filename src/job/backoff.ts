import type { Backoff } from './backoff-data.js';
import { toMilliseconds } from './duration.js';
import { BildadConfigError } from './errors.js';
import { refuseUnknown } from '../options/option-values.js';

const FIRST_DELAY_MS = 1_000;
const MAX_DELAY_MS = 3_600_000;
const JITTER = 0.5;
/** More doublings than any duration holds; without an end they reach Infinity, and 0 times that is NaN. */
const MAX_DOUBLINGS = 64;

/**
 * The pause before the next run, in milliseconds, after the run whose counted retry number was
 * `retry`. The jitter takes up to its share away, so `maxDelay` is a true maximum.
 * @param random from 0 to 1, passed in so that the policy stays pure
 */
export function backoffDelay(
  backoff: Backoff,
  retry: number,
  error: unknown,
  random: number,
): number {
  if (typeof backoff === 'function') {
    const pause: unknown = backoff(retry, error);
    // Refused below; its rejection must not become an unhandled one.
    if (pause instanceof Promise) pause.catch(() => undefined);
    return toMilliseconds(pause, 'backoff()');
  }
  if (backoff === 'none') return 0;
  if (typeof backoff !== 'object') return toMilliseconds(backoff, 'backoff');
  if (backoff.type === 'fixed') return toMilliseconds(backoff.delay, 'backoff.delay');
  const first = toMilliseconds(backoff.delay ?? FIRST_DELAY_MS, 'backoff.delay');
  const max = toMilliseconds(backoff.maxDelay ?? MAX_DELAY_MS, 'backoff.maxDelay');
  const whole = Math.min(first * 2 ** Math.min(retry, MAX_DOUBLINGS), max);
  return Math.round(whole * (1 - checkJitter(backoff.jitter) * random));
}

/** @throws BildadConfigError naming what is wrong with a backoff, before it is stored or used */
export function checkBackoff<B extends Backoff>(backoff: B, field: string): B {
  const given: unknown = backoff;
  if (typeof given === 'function' || given === 'none') return backoff;
  if (typeof given === 'number' || typeof given === 'string') {
    toMilliseconds(given, field);
    return backoff;
  }
  if (typeof given !== 'object' || given === null) throw wrong(field, given);
  const { type, delay, maxDelay, jitter } = given as Record<string, unknown>;
  if (type === 'fixed') {
    refuseUnknown(given, `${field}.`, ['type', 'delay']);
    toMilliseconds(delay, `${field}.delay`);
    return backoff;
  }
  if (type !== 'exponential') throw wrong(field, given);
  refuseUnknown(given, `${field}.`, ['type', 'delay', 'maxDelay', 'jitter']);
  if (delay !== undefined) toMilliseconds(delay, `${field}.delay`);
  if (maxDelay !== undefined) toMilliseconds(maxDelay, `${field}.maxDelay`);
  checkJitter(jitter, field);
  return backoff;
}

/** Stored backoffs as well: a hand in the database may have written anything. */
function checkJitter(jitter: unknown = JITTER, field = 'backoff'): number {
  if (typeof jitter === 'number' && jitter >= 0 && jitter <= 1) return jitter;
  throw new BildadConfigError(`${field}.jitter`, 'a number from 0 to 1', jitter);
}

function wrong(field: string, got: unknown): BildadConfigError {
  return new BildadConfigError(
    field,
    "'none', a duration, { type: 'fixed', delay } or { type: 'exponential', delay, maxDelay, jitter }",
    got,
  );
}
