import { setTimeout as wait } from 'node:timers/promises';
import { databaseCode } from '../error-code.js';

const NOT_SERIAL = '40001';
const MOST_TRIES = 20;
const LONGEST_PAUSE_MS = 10;

/** A process that stops in the middle of a transaction must not hold its locks for ever. */
const IDLE_IN_TRANSACTION_MS = 300_000;

/** How a transaction of the engine begins: its statements are made for PostgreSQL's own isolation level, whatever the database's default is. */
export const begin = (queryTimeoutMs: number) =>
  `BEGIN; SET LOCAL transaction_isolation = 'read committed'; SET LOCAL statement_timeout = ${Math.ceil(queryTimeoutMs * 0.9)};
   SET LOCAL idle_in_transaction_session_timeout = ${IDLE_IN_TRANSACTION_MS}`;

/**
 * A statement that is a transaction of its own, again and again while it comes into the way of others: where
 * `default_transaction_isolation` is stricter than PostgreSQL's own, claims and ends of two nodes do all the time. What
 * fails so has done nothing. A `SET` would stay behind behind PgBouncer, and `BEGIN` costs round trips.
 */
export async function untilSerial<T>(statement: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await statement();
    } catch (error) {
      if (databaseCode(error) !== NOT_SERIAL || tries === MOST_TRIES) throw error;
      await wait(Math.random() * LONGEST_PAUSE_MS);
    }
  }
}
