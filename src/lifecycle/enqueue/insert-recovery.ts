import { setTimeout as pause } from 'node:timers/promises';
import { EnqueueOutcomeUnknownError } from '../../job/errors.js';
import {
  isUnknown,
  type ConnectionLostError,
} from '../../database/connection/connection-errors.js';
import { isDataError } from '../../database/database-error.js';
import { findInserted, insertEntries, type NewEntry } from './enqueue.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { TransactionOptions } from '../../database/connection/engine-pool.js';
import type { Queryable } from '../../database/tables.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import type { LockRetry } from '../../concurrency/lock-retry.js';
import type { Store } from '../../database/store.js';

const ROWS_PER_STATEMENT = 500;
/** So many query timeouts long it is tried to find out. */
const PATIENCE = 2;
const FIRST_PAUSE_MS = 20;
const LONGEST_PAUSE_MS = 1_000;

interface Doubtful {
  draft: NewEntry;
  /** By `performance.now()`, the first time, or before. */
  sentAt: number;
}

/**
 * Inserts whose answer was lost with the connection: they may have been made. The identifiers were given before, so
 * what is missing can be put in again, and what is there is recognised, however often the connection is lost meanwhile.
 */
export class DoubtfulInserts {
  private readonly repeats = new WriteBatcher<Doubtful, JobQueueEntry | null>({
    maxItems: ROWS_PER_STATEMENT,
    bytesOf: ({ draft }) => draft.jobContext.length,
    write: (items) => this.repeat(items),
    isItemFault: isDataError,
  });

  constructor(
    private readonly store: Store,
    private readonly locks: LockRetry,
  ) {}

  /**
   * What was asked for, done once.
   * @returns null where it was left out, as by `insertEntries`
   * @throws EnqueueOutcomeUnknownError when the database cannot be asked in time
   */
  settle(draft: NewEntry, sentAt: number): Promise<JobQueueEntry | null> {
    const item = { draft, sentAt };
    return this.insist(draft, async () => {
      if (!draft.named) return this.repeats.add(item);
      // Somebody's open transaction may hold the name: that concerns no other job.
      const [entry] = await this.locks.attempt(() => this.repeat([item]));
      return entry ?? null;
    });
  }

  /**
   * Puts entries in with a transaction of its own, done once.
   * @param first of them, once they are put in
   * @throws EnqueueOutcomeUnknownError when the database cannot be asked in time
   */
  async committed(
    insert: (db: Queryable) => Promise<void>,
    first: () => NewEntry,
    options?: TransactionOptions,
  ): Promise<void> {
    const sentAt = performance.now();
    try {
      await this.store.db.transaction(insert, options);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      // Sent was the COMMIT.
      if (!(await this.wasCommitted(first(), sentAt)))
        throw (error as ConnectionLostError).undone();
    }
  }

  /**
   * Whether a transaction was committed, told by one of the entries that it put in.
   * @throws EnqueueOutcomeUnknownError when the database cannot be asked in time
   */
  private wasCommitted(draft: NewEntry, sentAt: number): Promise<boolean> {
    return this.insist(draft, async () => {
      const looked = new Looked();
      try {
        return await this.store.db.transaction(async (db) => {
          // Not only a look: it waits for a transaction that is still about to put in the same.
          const [again] = await this.insert(db, [{ draft, sentAt }]);
          const [there] = again ? [] : await this.find(db, [{ draft, sentAt }]);
          looked.found = Boolean(there);
          throw looked;
        });
      } catch (error) {
        if (error === looked) return looked.found;
        throw error;
      }
    });
  }

  private async repeat(items: Doubtful[]): Promise<(JobQueueEntry | null)[]> {
    const { db } = this.store;
    const inserted = await this.insert(db, items);
    const missing = items.filter((_item, index) => !inserted[index]);
    if (missing.length === 0) return inserted;
    const found = await this.find(db, missing);
    return inserted.map((entry) => entry ?? found.shift() ?? null);
  }

  /** A generated identifier is taken as well, if the first time was no failure. */
  private insert(db: Queryable, items: Doubtful[]) {
    return insertEntries(
      db,
      this.store.tables,
      items.map(({ draft }) => ({ ...draft, named: true })),
      items.some(({ draft }) => draft.named) ? this.locks.lockWaitMs : undefined,
    );
  }

  /** Since a little before they were first sent: this may wait for a connection as well. */
  private find(db: Queryable, items: Doubtful[]) {
    const first = Math.min(...items.map(({ sentAt }) => sentAt));
    return findInserted(
      db,
      this.store.tables,
      items.map(({ draft }) => draft),
      performance.now() - first + 2 * this.store.db.queryTimeoutMs,
    );
  }

  /** Attempts until one is answered. @throws EnqueueOutcomeUnknownError when the database cannot be asked in time */
  async insist<T>(
    { jobRunIdentifier }: Pick<NewEntry, 'jobRunIdentifier'>,
    attempt: () => Promise<T>,
  ): Promise<T> {
    const { db } = this.store;
    const giveUpAt = performance.now() + PATIENCE * db.queryTimeoutMs;
    for (let longest = FIRST_PAUSE_MS; ; longest *= 2) {
      try {
        return await attempt();
      } catch (error) {
        if (db.isClosed || performance.now() >= giveUpAt)
          throw new EnqueueOutcomeUnknownError(jobRunIdentifier, {
            cause: error,
          });
      }
      await pause(Math.min(longest, LONGEST_PAUSE_MS) * (0.5 + Math.random() / 2));
    }
  }
}

/** Rolls back what was put in to find out. */
class Looked extends Error {
  found = false;
}
