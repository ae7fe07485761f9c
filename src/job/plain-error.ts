import { attempt, errorRecord, storableOutput } from './storable-output.js';

/** Anything thrown, as plain data that can be sent to another thread or process. */
export type PlainError =
  | {
      name: string;
      message: string;
      stack?: string;
      /** Its own properties, as JSON text. */
      fields: string;
      cause?: PlainError;
    }
  /** The thrown value was not an Error: its JSON text, null for undefined. */
  | { thrown: string | null };

const MAX_CAUSES = 5;
/** Restored by name, not as own properties. */
const STANDARD = new Set(['name', 'message', 'stack', 'cause']);

/** Turns plain data back into an error. Only the error's class is lost. */
export function errorFromPlain(plain: PlainError): unknown {
  if ('thrown' in plain)
    return plain.thrown === null ? undefined : (JSON.parse(plain.thrown) as unknown);
  const { name, message, stack, fields, cause } = plain;
  const error = cause ? new Error(message, { cause: errorFromPlain(cause) }) : new Error(message);
  const define = (key: string, value: unknown, enumerable: boolean) =>
    Object.defineProperty(error, key, { value, enumerable, configurable: true, writable: true });
  define('name', name, false);
  define('stack', stack ?? `${name}: ${message}`, false);
  for (const [key, value] of Object.entries(JSON.parse(fields) as Record<string, unknown>))
    define(key, value, true);
  return error;
}

/** Never throws: getters that throw, cycles and huge values are replaced. */
export function errorToPlain(error: unknown, causes = MAX_CAUSES): PlainError {
  if (!isError(error)) return { thrown: storableOutput(error) };
  const { name, message, stack } = JSON.parse(errorRecord(error)) as {
    name: string;
    message: string;
    stack?: string;
  };
  const cause = attempt(() => error.cause);
  return {
    name,
    message,
    ...(stack !== undefined && { stack }),
    fields: fieldsOf(error),
    ...(cause !== undefined && causes > 0 && { cause: errorToPlain(cause, causes - 1) }),
  };
}

/** A property without a JSON form becomes a marker; the others are kept. */
function fieldsOf(error: Error): string {
  const fields = (attempt(() => Object.keys(error)) ?? [])
    .filter((key) => !STANDARD.has(key))
    .map((key) => {
      const value = attempt(() => (error as unknown as Record<string, unknown>)[key]);
      return [key, JSON.parse(storableOutput(value) ?? 'null') as unknown];
    });
  return storableOutput(Object.fromEntries(fields)) ?? '{}';
}

const isError = (error: unknown): error is Error => attempt(() => error instanceof Error) === true;
