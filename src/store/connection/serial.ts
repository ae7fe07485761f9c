import { setTimeout as wait } from 'node:timers/promises';
import { databaseCode } from '../error-code.js';

const NOT_SERIAL = '40001';
const MOST_TRIES = 20;
const LONGEST_PAUSE_MS = 10;

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
      if (databaseCode(error) !== NOT_SERIAL || tries === MOST_TRIES)
        throw error;
      await wait(Math.random() * LONGEST_PAUSE_MS);
    }
  }
}
