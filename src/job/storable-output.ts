/**
 * Makes errors and results of handlers storable in text and jsonb columns. PostgreSQL refuses NUL (22P05) and lone
 * surrogates (22P02), so an error that contains one could not be recorded.
 */
const REASON_LENGTH = 8_000;
const STACK_LENGTH = 16_000;
const MAX_OUTPUT_BYTES = 1_048_576;
const MAX_CAUSES = 5;

/** One readable line for `JobRun.reason`, at most 8,000 characters. */
export function reasonOf(error: unknown): string {
  return clean(messageOf(error), REASON_LENGTH) || nameOf(error);
}

export function nameOf(error: unknown): string {
  const name = attempt(() => (error as { name?: unknown }).name);
  return clean(typeof name === 'string' ? name : typeof error, 200) || 'Error';
}

interface ErrorRecord {
  name: string;
  message: string;
  stack?: string;
  code?: string | number;
  violations?: unknown;
  cause?: ErrorRecord;
}

/** Name, message, stack, code and causes of anything thrown, as JSON text. */
export function errorRecord(error: unknown): string {
  try {
    return JSON.stringify(record(error, MAX_CAUSES));
  } catch {
    // The violations are nested so deep that the stack overflows here.
    return JSON.stringify({ name: nameOf(error), message: reasonOf(error) });
  }
}

function record(error: unknown, causes: number): ErrorRecord {
  const stack = attempt(() => (error as { stack?: unknown }).stack);
  const code = attempt(() => (error as { code?: unknown }).code);
  const violations = attempt(() => (error as { violations?: unknown }).violations);
  const cause = attempt(() => (error as { cause?: unknown }).cause);
  return {
    name: nameOf(error),
    message: clean(messageOf(error), REASON_LENGTH),
    ...(typeof stack === 'string' && { stack: clean(stack, STACK_LENGTH) }),
    ...(typeof code === 'string' && { code: clean(code, 200) }),
    ...(typeof code === 'number' && { code }),
    ...(attempt(() => Array.isArray(violations)) && {
      violations: JSON.parse(storableOutput(violations) ?? 'null') as unknown,
    }),
    ...(cause !== undefined && causes > 0 && { cause: record(cause, causes - 1) }),
  };
}

function messageOf(error: unknown): string {
  const message = attempt(() => (error as { message?: unknown }).message);
  if (typeof message === 'string') return message;
  const text = attempt(() => String(error));
  return typeof text === 'string' ? text : 'an error that cannot be shown';
}

/**
 * A handler's return value as storable JSON text; null for undefined. A value that JSON would lose (BigInt, NaN, Map, ...)
 * is replaced by a marker. Output without a JSON form (a cycle, a getter that throws, more than 1 MiB) is replaced as a
 * whole, so that a job that succeeded is not run again because its output could not be stored.
 */
export function storableOutput(output: unknown): string | null {
  if (output === undefined) return null;
  let json: string | undefined;
  try {
    json = JSON.stringify(output, storableValue(MAX_OUTPUT_BYTES));
  } catch (error) {
    return marker(error === TOO_LARGE ? LARGE : reasonOf(error));
  }
  if (json === undefined) return marker(`a ${typeof output} has no JSON form`);
  // Keys pass the replacer untouched; the look-behind keeps a backslash that was itself escaped.
  if (/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f][0-9a-f]{2})/i.test(json))
    return marker('a key holds NUL or a lone surrogate');
  return Buffer.byteLength(json) > MAX_OUTPUT_BYTES ? marker(LARGE) : json;
}

const TOO_LARGE = new Error();
const LARGE = `its JSON is longer than ${MAX_OUTPUT_BYTES} bytes`;

/** A replacer that throws as soon as the text is too long: 50 MB take 0.1 ms instead of 120. */
function storableValue(room: number) {
  let left = room;
  return function (this: object, key: string, value: unknown): unknown {
    // The original, not the result of its toJSON: in that, some errors include requests and their headers.
    const own = (this as Record<string, unknown>)[key];
    if (own instanceof Error) value = markerForObject(own);
    // Each value takes at least a comma.
    left--;
    if (typeof value === 'string') left -= value.length;
    if (left < 0) throw TOO_LARGE;
    switch (typeof value) {
      case 'string':
        return clean(value, Infinity);
      case 'number':
        return Number.isFinite(value) ? value : unserializable(String(value));
      case 'bigint':
        return unserializable('a bigint');
      case 'object':
        return value === null ? null : (markerForObject(value) ?? value);
      default:
        return value;
    }
  };
}

/** A marker for objects that JSON.stringify would turn into `{}`. */
function markerForObject(value: object): unknown {
  if (value instanceof Error) return { name: nameOf(value), message: reasonOf(value) };
  const kind = UNSUPPORTED.find((type) => value instanceof type);
  return kind && unserializable(`a ${kind.name}`);
}

const UNSUPPORTED = [Map, Set, WeakMap, WeakSet, WeakRef, Promise, RegExp];

const unserializable = (what: string) => ({ $unserializable: `${what} has no JSON form` });

const marker = (why: string) => JSON.stringify({ $unserializable: clean(why, 500) });

/** Well-formed, without NUL, at most `length` UTF-16 units and never cut inside a character. */
export function clean(text: string, length: number): string {
  const cut = text.length > length ? text.slice(0, length) : text;
  return cut.replaceAll('\0', '\uFFFD').toWellFormed();
}

/** @returns undefined if `read` throws */
export function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
