import type { PlainError } from './plain-error.js';
import { attempt, errorRecord, storableOutput } from './storable-output.js';

const MAX_CAUSES = 5;
/** What `revived` gives an error anyway. */
const KNOWN = new Set(['name', 'message', 'stack', 'cause']);

/** Never throws, whatever was thrown: getters that do, cycles, megabytes. */
export function plainError(error: unknown, causes = MAX_CAUSES): PlainError {
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
    ...(cause !== undefined && causes > 0 && { cause: plainError(cause, causes - 1) }),
  };
}

/** A field that has no JSON form leaves its marker, and the others are as they were. */
function fieldsOf(error: Error): string {
  const fields = (attempt(() => Object.keys(error)) ?? [])
    .filter((key) => !KNOWN.has(key))
    .map((key) => {
      const value = attempt(() => (error as unknown as Record<string, unknown>)[key]);
      return [key, JSON.parse(storableOutput(value) ?? 'null') as unknown];
    });
  return storableOutput(Object.fromEntries(fields)) ?? '{}';
}

const isError = (error: unknown): error is Error => attempt(() => error instanceof Error) === true;
