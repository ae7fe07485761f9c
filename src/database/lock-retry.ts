import { LockRetry } from '../concurrency/lock-retry.js';
import { BildadDatabaseError } from '../job/errors.js';
import type { EnginePool } from './connection/engine-pool.js';
import { databaseCode, isConflict } from './database-error.js';

/** How long one attempt waits for a lock: longer than transactions that only enqueue. */
const LOCK_WAIT_MS = 50;
/** With a short query timeout the wait is shorter too: a late answer would count as a lost connection. */
const LOCK_WAITS_PER_QUERY_TIMEOUT = 8;
const QUERY_TIMEOUTS_LOCKED = 2;

/** Retries statements that find a row locked by another transaction. */
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
