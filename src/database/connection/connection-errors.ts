import { QueryFailedError } from 'typeorm';
import { databaseCode } from '../database-error.js';

/** A SQLSTATE. No error code of a system looks like one: those begin with E. */
const SQLSTATE = /^[0-9A-DF-Z][0-9A-Z]{4}$/;
/**
 * connection_exception, statement_completion_unknown; admin_shutdown, crash_shutdown,
 * cannot_connect_now, database_dropped, idle_session_timeout; read_only_sql_transaction: a primary
 * that became a standby still answers.
 */
const LOST_STATE = /^(08|40003|57P0[1-5]|25006)/;
const QUERY_CANCELED = '57014';

/**
 * The connection to the database was lost, or could not be opened. It is a `QueryFailedError` of
 * TypeORM, with the driver's error in `driverError` and its code in `code`.
 */
export class ConnectionLostError extends QueryFailedError {
  constructor(
    sql: string,
    parameters: unknown[] | undefined,
    error: Error,
    /** Whether the statement may have been executed: it was sent, and its answer was lost. */
    readonly mayBeDone: boolean,
  ) {
    super(sql, parameters, error);
  }

  /** A copy of this error for a transaction that was not committed. */
  withNothingDone(): ConnectionLostError {
    const { query, parameters, driverError } = this;
    return this.mayBeDone
      ? new ConnectionLostError(query, parameters as unknown[] | undefined, driverError, false)
      : this;
  }
}

/**
 * A statement took longer than `queryTimeout`, and the server has cancelled it: it had no effect.
 * `code` is `57014`. The connection was fine, so this is no outage.
 */
export class StatementTimeoutError extends QueryFailedError {
  constructor(sql: string, parameters: unknown[] | undefined, ms: number) {
    const message = `the statement was cancelled: it did not end within ${ms} ms`;
    super(sql, parameters, Object.assign(new Error(message), { code: QUERY_CANCELED }));
  }
}

export const isCancelled = (error: unknown) => databaseCode(error) === QUERY_CANCELED;

/** An error of the driver as a `ConnectionLostError` if it is one, else itself. */
export const asConnectionLost = (sql: string, error: unknown) =>
  error instanceof Error && isBroken(error)
    ? new ConnectionLostError(sql, undefined, error, false)
    : error;

/** Whether the same statement may succeed later: the connection was lost, or the statement took too long. */
export const isUnanswered = (error: unknown) =>
  error instanceof ConnectionLostError || error instanceof StatementTimeoutError;

/** Whether it is unknown if the statement was executed. */
export const isUnknown = (error: unknown) =>
  error instanceof ConnectionLostError && error.mayBeDone;

/** Whether an error of the driver means that the connection is unusable. An error that the server answered does not. */
export function isBroken(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  if (isAnswer(error)) return LOST_STATE.test(code as string);
  // The driver cannot write a value: the connection is fine.
  return !(error instanceof TypeError || error instanceof RangeError);
}

/** Whether an error came from a server. */
export function isAnswer(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  return typeof code === 'string' && SQLSTATE.test(code);
}

/** Whether the server has no connection left for the engine. */
export const isCrowded = (error: unknown) => databaseCode(error)?.startsWith('53') ?? false;

export class NoAnswerError extends Error {
  readonly code = 'ETIMEDOUT';

  constructor(ms: number) {
    super(`the database did not answer within ${ms} ms`);
  }
}

/** `pg` reports in its message only that a connection was not made in time. */
export function withCode(error: Error): Error {
  const late = /timeout expired|due to connection timeout/.test(error.message);
  return late && !('code' in error) ? Object.assign(error, { code: 'ETIMEDOUT' }) : error;
}

/** The engine's own statements use all its connections. The database is not at fault. */
export class BusyError extends Error {
  constructor(ms: number, what = 'connection') {
    super(`no ${what} of the engine became free within ${ms} ms`);
  }
}

/** A standby, or a primary that was made read-only. */
export class ReadOnlyError extends Error {
  readonly code = '25006';

  constructor() {
    super('the server is read-only');
  }
}
