import ms from 'ms';
import { BildadConfigError } from './errors.js';

/** Milliseconds, or text such as `'90s'`, `'5m'`, `'2h'`. */
export type Duration = number | string;

/** 100 years: beyond it a `Date` plus the duration stops being useful to anyone. */
const LONGEST = 100 * 365.25 * 24 * 3600 * 1000;

/**
 * A duration in whole milliseconds.
 * @throws BildadConfigError naming `field`, when `value` is no duration or lies outside `min` and `max` (100 years)
 */
export function toMilliseconds(
  value: unknown,
  field: string,
  { min = 0, max = LONGEST }: { min?: number; max?: number } = {},
): number {
  const parsed =
    typeof value === 'number'
      ? value
      : typeof value === 'string' && /^\s*[\d.]/.test(value)
        ? ms(value.trim() as ms.StringValue)
        : undefined;
  if (parsed === undefined || !Number.isFinite(parsed) || parsed < min || parsed > max)
    throw new BildadConfigError(
      field,
      `a duration of at least ${min}${max < LONGEST ? ` and at most ${max}` : ''} ms: milliseconds, or text such as '90s', '5m', '2h'`,
      value,
    );
  return Math.round(parsed);
}
