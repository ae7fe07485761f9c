import type { EntityManager } from 'typeorm';

/** Who wants to hear that entries are due. */
export interface Due {
  /** They are committed. @param here whether this process is to start them as well as others */
  now(options?: { here?: boolean }): void;
  /** They are as soon as the transaction of this manager commits. */
  after(manager: EntityManager): void;
}
