import { BildadConfigError } from '../job/errors.js';

export function wholeNumber(value: unknown, field: string, min: number, max: number): number {
  if (!Number.isInteger(value) || Number(value) < min || Number(value) > max)
    throw new BildadConfigError(field, `a whole number from ${min} to ${max}`, value);
  return Number(value);
}

export function text(value: unknown, field: string, longest = 200): string {
  if (
    typeof value !== 'string' ||
    value.length === 0 ||
    value.length > longest ||
    value.includes('\0') ||
    !value.isWellFormed()
  )
    throw new BildadConfigError(field, `a text of 1 to ${longest} characters without NUL`, value);
  return value;
}

export function flag(value: unknown, field: string): boolean {
  if (typeof value !== 'boolean') throw new BildadConfigError(field, 'true or false', value);
  return value;
}

export function oneOf<T extends string>(value: unknown, field: string, words: readonly T[]): T {
  if (!words.includes(value as T))
    throw new BildadConfigError(
      field,
      `one of ${words.map((word) => `'${word}'`).join(', ')}`,
      value,
    );
  return value as T;
}

/** What stands in errors for values that may hold a key or a context. */
export const kindOf = (value: unknown): unknown =>
  value === null || value === undefined ? value : Array.isArray(value) ? 'array' : typeof value;

/**
 * Refuses options that are no object, and names that are not among the known ones: a misspelt one may hold secrets, so
 * the error has the kind of its value only. `prefix` leads to the names.
 * @throws BildadConfigError
 */
export function refuseUnknown(value: object, prefix: string, known: readonly string[]): void {
  const given: unknown = value;
  if (typeof given !== 'object' || given === null || Array.isArray(given))
    throw new BildadConfigError(
      prefix.replace(/[.: ]+$/, '') || 'options',
      'an object',
      kindOf(given),
    );
  for (const key of Object.keys(value))
    if (!known.includes(key))
      throw new BildadConfigError(
        `${prefix}${key}`,
        `no such option; known are ${known.join(', ')}`,
        kindOf((value as Record<string, unknown>)[key]),
      );
}
