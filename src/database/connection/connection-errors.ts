import { QueryFailedError } from 'typeorm';
import { databaseCode } from '../database-error.js';

/** A SQLSTATE, which no system's error code looks like: none of them begins with E. */
const SQLSTATE = /^[0-9A-DF-Z][0-9A-Z]{4}$/;
/**
 * connection_exception, statement_completion_unknown; admin_shutdown, crash_shutdown, cannot_connect_now,
 * database_dropped, idle_session_timeout; read_only_sql_transaction: a primary that has become a standby goes on answering.
 */
const LOST_STATE = /^(08|40003|57P0[1-5]|25006)/;

/**
 * The connection to the database was lost, or none could be made. To who catches TypeORM's QueryFailedError it is
 * one, with the driver's error in `driverError` and its code in `code`.
 */
export class ConnectionLostError extends QueryFailedError {
  constructor(
    sql: string,
    parameters: unknown[] | undefined,
    error: Error,
    /** Whether the statement may have been carried out all the same: it was sent, and its answer never came. */
    readonly mayBeDone: boolean,
  ) {
    super(sql, parameters, error);
  }

  /** The same of a transaction that was never committed. */
  undone(): ConnectionLostError {
    return this.mayBeDone
      ? new ConnectionLostError(
          this.query,
          this.parameters as unknown[] | undefined,
          this.driverError,
          false,
        )
      : this;
  }
}

/** An error of the driver's as what it is: a lost connection, or else itself. */
export const asLost = (sql: string, error: unknown) =>
  error instanceof Error && isBroken(error)
    ? new ConnectionLostError(sql, undefined, error, false)
    : error;

/** Nobody knows whether what was asked for was done. */
export const isUnknown = (error: unknown) =>
  error instanceof ConnectionLostError && error.mayBeDone;

/** What the driver says of a connection that is of no use any more: everything but a plain answer of the server's. */
export function isBroken(error: unknown): boolean {
  const { code } = (error ?? {}) as { code?: unknown };
  if (typeof code === 'string' && SQLSTATE.test(code)) return LOST_STATE.test(code);
  // A value that the driver cannot write is no fault of the connection's.
  return !(error instanceof TypeError || error instanceof RangeError);
}

/** The server has no connection left for us. */
export const isCrowded = (error: unknown) => databaseCode(error)?.startsWith('53') ?? false;

/** No answer in time. */
export class NoAnswerError extends Error {
  readonly code = 'ETIMEDOUT';

  constructor(ms: number) {
    super(`the database did not answer within ${ms} ms`);
  }
}

/** `pg` says in words alone that a connection was not there in time. */
export function withCode(error: Error): Error {
  const late = /timeout expired|due to connection timeout/.test(error.message);
  return late && !('code' in error) ? Object.assign(error, { code: 'ETIMEDOUT' }) : error;
}

/** All connections are in use, and none became free in time: no fault of the database's. */
export class BusyError extends Error {
  constructor(ms: number) {
    super(`no connection of the engine became free within ${ms} ms`);
  }
}

/** A standby, or a primary that was made read-only. */
export class ReadOnlyError extends Error {
  readonly code = '25006';

  constructor() {
    super('the server is read-only');
  }
}
