import ms from 'ms';
import { BildadConfigError } from './errors.js';

/** Milliseconds, or text such as `'90s'`, `'5m'`, `'2h'`. */
export type Duration = number | string;

/** 100 years in milliseconds. */
const MAX_DURATION_MS = 100 * 365.25 * 24 * 3600 * 1000;

/**
 * A duration in whole milliseconds.
 * @param limits in milliseconds; from 0 to 100 years unless given. `where`: the call that got the value, for the error
 * @throws BildadConfigError about `field` when `value` is not a duration within the limits
 */
export function toMilliseconds(
  value: unknown,
  field: string,
  {
    min = 0,
    max = MAX_DURATION_MS,
    where,
  }: { min?: number; max?: number; where?: string | undefined } = {},
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
      `must be a duration of at least ${min} ms${max < MAX_DURATION_MS ? ` and at most ${max} ms` : ''}: a number of milliseconds, or text such as '90s', '5m', '2h'`,
      { got: value, where },
    );
  return Math.round(parsed);
}
