import type { EntityManager } from 'typeorm';
import type { Following } from '../../database/connection/piggyback.js';

/** Who wants to hear that entries are due. */
export interface Due {
  /**
   * They are committed.
   * @param here whether this process is to start them
   * @param others whether other processes are; not where they were told along with the insert
   */
  now(options?: { here?: boolean; others?: boolean }): void;
  /** What tells others, to be sent along with an insert; null where that is better done for many inserts together. */
  along(): Following | null;
  /** They are as soon as the transaction of this manager commits. */
  after(manager: EntityManager): void;
}
