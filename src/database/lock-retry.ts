import { LockRetry } from '../concurrency/lock-retry.js';
import { BildadDatabaseError } from '../job/errors.js';
import type { EnginePool } from './connection/engine-pool.js';
import { databaseCode, isConflict } from './database-error.js';

/** How long one attempt waits for a lock: transactions that enqueue, and do nothing else, are over by then. */
const LOCK_WAIT_MS = 50;
/** Where the query timeout is short: an answer that comes late counts as a lost connection. */
const LOCK_WAITS_PER_QUERY_TIMEOUT = 8;
const QUERY_TIMEOUTS_LOCKED = 2;

/** Retries of statements that may find a row locked by a transaction of somebody else. */
export const createLockRetry = (db: Pick<EnginePool, 'queryTimeoutMs'>) =>
  new LockRetry({
    isLocked,
    lockWaitMs: () =>
      Math.ceil(Math.min(LOCK_WAIT_MS, db.queryTimeoutMs / LOCK_WAITS_PER_QUERY_TIMEOUT)),
    patienceMs: () => QUERY_TIMEOUTS_LOCKED * db.queryTimeoutMs,
    timeoutError: (what, ms, cause) =>
      new BildadDatabaseError(
        `${what} was locked by another transaction for more than ${ms} ms: is one left open?`,
        databaseCode(cause) ?? '55P03',
        { cause },
      ),
  });

/** lock_not_available, or a conflict with another transaction: nothing was done. */
export const isLocked = (error: unknown) => databaseCode(error) === '55P03' || isConflict(error);
