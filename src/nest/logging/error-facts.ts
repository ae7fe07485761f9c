import { BildadError } from '../../job/errors.js';
import { nameOf } from '../../job/storable-output.js';
import { databaseCode } from '../../database/database-error.js';
import type { LogFields } from './log-line.js';

/** `QueryFailedError (23514)`, and what that came of. */
export function classOf(error: unknown): string {
  const code = codeOf(error);
  const cause = causeOf(error);
  return `${nameOf(error)}${code ? ` (${code})` : ''}${cause ? `, caused by ${cause}` : ''}`;
}

export const errorFields = (error: unknown): LogFields => {
  const { constraint, table } = driverFields(error);
  return {
    errorName: nameOf(error),
    errorCode: codeOf(error),
    errorCause: causeOf(error),
    constraint,
    table,
  };
};

const codeOf = (error: unknown): string | undefined =>
  error instanceof BildadError ? error.code : databaseCode(error);

const causeOf = (error: unknown): string | undefined =>
  error instanceof Error && error.cause !== undefined ? nameOf(error.cause) : undefined;

/** PostgreSQL names what a row offends against; the row itself is in `detail`, and stays there. */
function driverFields(error: unknown): { constraint?: string; table?: string } {
  const { driverError } = (error ?? {}) as { driverError?: unknown };
  const { constraint, table } = (driverError ?? {}) as Record<string, unknown>;
  return {
    ...(typeof constraint === 'string' && { constraint }),
    ...(typeof table === 'string' && { table }),
  };
}
