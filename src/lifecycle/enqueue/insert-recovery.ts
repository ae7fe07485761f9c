import { setTimeout as pause } from 'node:timers/promises';
import { BLOCKED, type LockRetry } from '../../concurrency/lock-retry.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import { ConnectionLostError, isUnknown } from '../../database/connection/connection-errors.js';
import { isDataError, isTransient } from '../../database/database-error.js';
import type { TransactionOptions } from '../../database/connection/engine-pool.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { Queryable } from '../../database/tables.js';
import { EnqueueOutcomeUnknownError } from '../../job/errors.js';
import { findInserted, insertEntries, type NewEntry } from './enqueue.sql.js';

const ROWS_PER_STATEMENT = 500;
const QUERY_TIMEOUTS_UNKNOWN = 2;
const FIRST_PAUSE_MS = 20;
const MAX_PAUSE_MS = 1_000;

interface UnknownInsert {
  entry: NewEntry;
  /** When it was first sent, or earlier (`performance.now()`). */
  sentAt: number;
}

/**
 * Inserts whose answer was lost with the connection: they may have been committed. Missing entries are inserted again,
 * and existing ones are recognized by their identifier, however often the connection is lost meanwhile.
 */
export class InsertRecovery {
  private readonly inserts: WriteBatcher<UnknownInsert, JobQueueEntry | null>;

  constructor(
    private readonly engine: Pick<EngineContext, 'store'>,
    private readonly locks: LockRetry,
  ) {
    this.inserts = new WriteBatcher({
      maxItems: ROWS_PER_STATEMENT,
      bytesOf: ({ entry }) => entry.jobContext.length,
      write: (items) => this.insertMissing(items),
      isItemFault: isDataError,
      lockRetry: locks,
    });
  }

  /**
   * @returns the entry of both attempts; null if it is refused, as by `insertEntries`
   * @throws EnqueueOutcomeUnknownError when the database does not answer in time
   */
  insertAgain(entry: NewEntry, sentAt: number): Promise<JobQueueEntry | null> {
    const item = { entry, sentAt };
    return this.repeat(entry.jobRunIdentifier, async () => {
      if (!entry.named) return this.inserts.add(item);
      // Another transaction may hold a chosen identifier: other jobs do not wait for it.
      const [result] = await this.locks.attempt(() => this.insertMissing([item]));
      if (result === BLOCKED) throw new StillLockedError();
      return result ?? null;
    });
  }

  /**
   * Commits a transaction of the engine, once.
   * @param first an entry of the transaction
   * @throws EnqueueOutcomeUnknownError when the database does not answer in time
   */
  async commit(
    insert: (db: Queryable) => Promise<void>,
    first: () => NewEntry,
    options?: TransactionOptions,
  ): Promise<void> {
    const sentAt = performance.now();
    try {
      await this.engine.store.db.transaction(insert, options);
    } catch (error) {
      if (!(error instanceof ConnectionLostError && isUnknown(error))) throw error;
      // The answer to COMMIT was lost.
      if (!(await this.wasCommitted({ entry: first(), sentAt }))) throw error.withNothingDone();
    }
  }

  /**
   * Repeats an attempt until the database answers it.
   * @throws EnqueueOutcomeUnknownError after two query timeouts
   */
  async repeat<T>(jobRunIdentifier: string, attempt: () => Promise<T>): Promise<T> {
    const { db } = this.engine.store;
    const giveUpAt = performance.now() + QUERY_TIMEOUTS_UNKNOWN * db.queryTimeoutMs;
    for (let maxPause = FIRST_PAUSE_MS; ; maxPause *= 2) {
      try {
        return await attempt();
      } catch (error) {
        const mayPass =
          error instanceof ConnectionLostError ||
          error instanceof StillLockedError ||
          isTransient(error);
        if (!mayPass || db.isClosed || performance.now() >= giveUpAt)
          throw new EnqueueOutcomeUnknownError(jobRunIdentifier, { cause: error });
      }
      await pause(Math.min(maxPause, MAX_PAUSE_MS) * (0.5 + Math.random() / 2));
    }
  }

  /** Looks up one of the transaction's entries. */
  private wasCommitted(item: UnknownInsert): Promise<boolean> {
    return this.repeat(item.entry.jobRunIdentifier, async () => {
      const probe = new ProbeRollback();
      try {
        return await this.engine.store.db.transaction(async (db) => {
          // An INSERT waits for a transaction that still inserts the same; a SELECT would not.
          const [result] = await this.insertNamed(db, [item]);
          if (result === BLOCKED) throw new StillLockedError();
          probe.found = !result && Boolean((await this.find(db, [item]))[0]);
          throw probe;
        });
      } catch (error) {
        if (error === probe) return probe.found;
        throw error;
      }
    });
  }

  private async insertMissing(
    items: UnknownInsert[],
  ): Promise<(JobQueueEntry | typeof BLOCKED | null)[]> {
    const { db } = this.engine.store;
    const results = await this.insertNamed(db, items);
    const missing = items.filter((_item, index) => !results[index]);
    if (missing.length === 0) return results;
    const found = await this.find(db, missing);
    return results.map((result) => result ?? found.shift() ?? null);
  }

  /** Inserts as if each identifier was chosen: if the first attempt was committed, it is taken. */
  private insertNamed(db: Queryable, items: UnknownInsert[]) {
    return insertEntries(
      db,
      this.engine.store.tables,
      items.map(({ entry }) => ({ ...entry, named: true })),
      this.locks.lockWaitMs,
    );
  }

  /** The time range has a margin, because this statement may wait for a connection as well. */
  private find(db: Queryable, items: UnknownInsert[]) {
    const { store } = this.engine;
    const first = Math.min(...items.map(({ sentAt }) => sentAt));
    return findInserted(
      db,
      store.tables,
      items.map(({ entry }) => entry),
      performance.now() - first + 2 * store.db.queryTimeoutMs,
    );
  }
}

class StillLockedError extends Error {}

/** Rolls back an insert that only finds out whether an entry exists. */
class ProbeRollback extends Error {
  found = false;
}
