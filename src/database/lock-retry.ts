import { setTimeout as pause } from 'node:timers/promises';
import { BildadDatabaseError } from '../job/errors.js';
import type { EnginePool } from './connection/engine-pool.js';
import { Turns } from '../concurrency/semaphore.js';
import { databaseCode, isConflict } from './database-error.js';

/** A name or key may be locked for as long as somebody's transaction takes: connections are left for the rest. */
const AT_ONCE = 2;
/** Of a query timeout: an answer that comes late is taken for a connection that is lost. */
const LOCK_WAIT = 1 / 8;
const LONGEST_LOCK_WAIT_MS = 500;
/** So many query timeouts long it may be locked. */
const PATIENCE = 2;
const LONGEST_PAUSE_MS = 50;

/** What may have to wait for somebody's transaction: attempts that wait for a lock a little, and hold on to nothing in between. */
export class LockPatience {
  private readonly turns = new Turns(AT_ONCE);

  constructor(private readonly db: EnginePool) {}

  /** How long a statement may wait for a lock, in milliseconds. @param most or less, where the query timeout is short */
  lockWaitMs(most = LONGEST_LOCK_WAIT_MS): number {
    return Math.ceil(Math.min(LOCK_WAIT * this.db.queryTimeoutMs, most));
  }

  /** One attempt, of a few at a time. */
  inTurn<T>(attempt: () => Promise<T>): Promise<T> {
    return this.turns.take(attempt);
  }

  /**
   * @param what may be locked
   * @param attempt has done nothing where it fails for a lock
   * @throws BildadDatabaseError when another transaction holds it for too long
   */
  async until<T>(what: string, attempt: () => Promise<T>): Promise<T> {
    const most = PATIENCE * this.db.queryTimeoutMs;
    const giveUpAt = performance.now() + most;
    for (;;) {
      try {
        return await this.inTurn(attempt);
      } catch (error) {
        if (!isInTheWay(error)) throw error;
        if (performance.now() >= giveUpAt)
          throw new BildadDatabaseError(
            `${what} of a job was locked by another transaction for more than ${most} ms: is one left open?`,
            databaseCode(error),
            { cause: error },
          );
      }
      await pause(Math.random() * LONGEST_PAUSE_MS);
    }
  }
}

/** lock_not_available, or a conflict: nothing was done. */
export const isInTheWay = (error: unknown) => databaseCode(error) === '55P03' || isConflict(error);
