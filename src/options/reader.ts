import { toMilliseconds } from '../job/duration.js';
import { BildadConfigError } from '../job/errors.js';

/**
 * Checks a value and returns it as the engine uses it: durations in milliseconds, defaults filled in.
 * A group of options is a check too, so groups nest.
 * @param field the option's full name, for the error
 * @param where the call or decorator that got the option, for the error
 * @throws BildadConfigError about `field`
 */
export type Check<T> = (value: unknown, field: string, where?: string) => T;

/** The options of one object, each with its check. */
export type Schema = Readonly<Record<string, Check<unknown>>>;

/** For `satisfies`: a check for every option of the interface `O`, and for nothing else. */
export type SchemaOf<O> = { readonly [K in keyof Required<O>]: Check<unknown> };

/** The result of reading a group of options. */
export type Read<S extends Schema> = { -readonly [K in keyof S]: ReturnType<S[K]> };

/** Options for which `undefined` means "not given": they have no default. */
export const optional =
  <T>(check: Check<T>): Check<T | undefined> =>
  (value, field, where) =>
    value === undefined ? undefined : check(value, field, where);

/** @param fallback as a user would write it; it is checked like a given value */
export const withDefault =
  <T>(check: Check<T>, fallback: unknown): Check<T> =>
  (value, field, where) =>
    check(value === undefined ? fallback : value, field, where);

/** Accepts one more value beside those of `check`. */
export const or =
  <T, V extends false | null>(check: Check<T>, other: V): Check<T | V> =>
  (value, field, where) => {
    if (value === other) return other;
    try {
      return check(value, field, where);
    } catch (error) {
      if (!(error instanceof BildadConfigError) || error.field !== field) throw error;
      throw new BildadConfigError(field, `${error.problem}, or ${other}`, { got: value, where });
    }
  };

/** @param problem what a value must be: `must be true or false` */
export const check =
  <T>(isValid: (value: unknown) => boolean, problem: string): Check<T> =>
  (value, field, where) => {
    if (isValid(value)) return value as T;
    throw new BildadConfigError(field, problem, { got: value, where });
  };

export const boolean = check<boolean>(
  (value) => typeof value === 'boolean',
  'must be true or false',
);

export const integer = (min: number, max: number) =>
  check<number>(
    (value) => Number.isInteger(value) && Number(value) >= min && Number(value) <= max,
    `must be an integer from ${min} to ${max}`,
  );

export const string = (maxLength = 200) =>
  check<string>(
    (value) =>
      typeof value === 'string' &&
      value.length > 0 &&
      value.length <= maxLength &&
      !value.includes('\0') &&
      value.isWellFormed(),
    `must be a string of 1 to ${maxLength} characters without NUL`,
  );

export const oneOf = <T extends string>(...values: readonly T[]) =>
  check<T>(
    (value) => values.includes(value as T),
    `must be one of ${values.map((one) => `'${one}'`).join(', ')}`,
  );

/** @param task what the function does, after "a function that" */
export const callback = <F extends (...args: any[]) => unknown>(task: string) =>
  check<F>((value) => typeof value === 'function', `must be a function that ${task}`);

/** Read into milliseconds. */
export const duration =
  (limits: { min?: number; max?: number } = {}): Check<number> =>
  (value, field, where) =>
    toMilliseconds(value, field, { ...limits, where });

/** The last millisecond of the year 9999: PostgreSQL does not read the ISO form of later dates. */
const LAST_MOMENT = 253_402_300_799_999;
const checkDate = check<Date>(
  (value) => value instanceof Date && value.getTime() >= 0 && value.getTime() <= LAST_MOMENT,
  'must be a Date from 1970 to 9999',
);

/** Read into ISO text. */
export const date: Check<string> = (value, field, where) =>
  checkDate(value, field, where).toISOString();

/** Reads every option of the schema. Unknown options are refused. */
export function group<S extends Schema>(schema: S): Check<Read<S>> {
  const names = Object.keys(schema);
  return (value, field, where) => {
    const given = refuseUnknown(value, names, field, where);
    const read: Record<string, unknown> = {};
    for (const name of names) read[name] = schema[name]!(given[name], nested(field, name), where);
    return read as Read<S>;
  };
}

/** Reads only the options that are given and not `undefined`, without defaults. Unknown options are refused. */
export function partial<S extends Schema>(schema: S): Check<Partial<Read<S>>> {
  const names = Object.keys(schema);
  return (value, field, where) => {
    const given = refuseUnknown(value, names, field, where);
    const read: Record<string, unknown> = {};
    for (const name of Object.keys(given))
      if (given[name] !== undefined)
        read[name] = schema[name]!(given[name], nested(field, name), where);
    return read as Partial<Read<S>>;
  };
}

const nested = (field: string, name: string) => (field === '' ? name : `${field}.${name}`);

/** @throws BildadConfigError when more than one of these options is given */
export function refuseTogether(options: object, where: string, ...names: string[]): void {
  const given = names.filter(
    (name) => (Object(options) as Record<string, unknown>)[name] !== undefined,
  );
  if (given.length > 1)
    throw new BildadConfigError(given[0]!, `cannot be combined with ${given.slice(1).join(', ')}`, {
      where,
    });
}

/** Names the type of a value that may hold a secret, instead of showing the value. */
export const typeName = (value: unknown): string =>
  value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value;

/**
 * Refuses what is not an object, and options that are not known. An unknown option may hold a secret, so the error does
 * not show its value.
 * @param field the option that holds the object; empty for the outermost one
 * @returns the object
 * @throws BildadConfigError
 */
export function refuseUnknown(
  value: unknown,
  known: readonly string[],
  field = '',
  where?: string,
): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new BildadConfigError(field || 'options', `must be an object, not ${typeName(value)}`, {
      where,
    });
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue;
    const similar = mostSimilar(name, known);
    throw new BildadConfigError(
      nested(field, name),
      `is not an option${similar ? `: did you mean ${similar}?` : '.'} Known options: ${known.join(', ')}`,
      { where },
    );
  }
  return value as Record<string, unknown>;
}

function mostSimilar(name: string, known: readonly string[]): string | undefined {
  const lower = name.toLowerCase();
  const distanceTo = (option: string) =>
    name.length > 3 && option.includes(lower) ? 1 : editDistance(lower, option);
  const [best] = known
    .map((option) => ({ option, distance: distanceTo(option.toLowerCase()) }))
    .toSorted((one, other) => one.distance - other.distance);
  return best && best.distance <= Math.max(1, name.length / 3) ? best.option : undefined;
}

/** How many characters have to be inserted, removed or replaced to turn one text into the other. */
function editDistance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let i = 1; i <= from.length; i++) {
    const next = [i];
    for (let j = 1; j <= to.length; j++) {
      const replaced = row[j - 1]! + (from[i - 1] === to[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[to.length]!;
}
