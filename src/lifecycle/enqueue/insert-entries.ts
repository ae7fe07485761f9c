import { BLOCKED, type LockRetry } from '../../concurrency/lock-retry.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import { isUnknown } from '../../database/connection/connection-errors.js';
import { isConflict, isDataError } from '../../database/database-error.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import { createLockRetry } from '../../database/lock-retry.js';
import type { Queryable } from '../../database/tables.js';
import { DuplicateJobError } from '../../job/errors.js';
import type { WakeUps } from '../../notifications/wake-ups.js';
import type { JobKey } from './enqueue-options.js';
import {
  insertEntries,
  insertKeyedEntry,
  type KeyedOutcome,
  type NewEntry,
} from './enqueue.sql.js';
import { InsertRecovery } from './insert-recovery.js';
import type { PreparedJob } from './prepare-entry.js';

const ROWS_PER_SHARED_INSERT = 500;

export interface Inserted {
  entry: JobQueueEntry;
  /** This call inserted it; another job may hold the key instead. */
  isNew: boolean;
  /** This call inserted or changed it, so it may be due now. */
  isWritten: boolean;
  /** Other processes were notified along with the insert. */
  isNotified: boolean;
}

/**
 * The second stage of an enqueue: the INSERT. Calls in flight together share a statement. A row that another
 * transaction has locked (a template, a chosen identifier, a key, a run to retry) delays only the calls that need it.
 *
 * The identifier is chosen before the insert, so an insert whose answer was lost with the connection is recovered:
 * each call makes one entry.
 */
export class InsertEntries {
  private readonly locks: LockRetry;
  private readonly recovery: InsertRecovery;
  private readonly generated: WriteBatcher<NewEntry, Inserted | null>;
  /** A batch of its own, because a statement waits for a chosen identifier that is locked. */
  private readonly named: WriteBatcher<NewEntry, Inserted | null>;

  constructor(
    private readonly engine: Pick<EngineContext, 'store'>,
    private readonly wakeUps: WakeUps,
  ) {
    this.locks = createLockRetry(engine.store.db);
    this.recovery = new InsertRecovery(engine, this.locks);
    this.generated = this.batcher((error) => isDataError(error) || isConflict(error));
    this.named = this.batcher(isDataError);
  }

  /**
   * Inserts outside of a caller's transaction. @returns null if the entry is refused
   * @throws BildadDatabaseError when another transaction holds a lock for too long; EnqueueOutcomeUnknownError,
   *   DuplicateJobError
   */
  async insert({ entry, key }: PreparedJob): Promise<Inserted | null> {
    if (key) return this.insertKeyed(entry, key);
    const sentAt = performance.now();
    try {
      return await (entry.named ? this.named : this.generated).add(entry);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      return asInserted(await this.recovery.insertAgain(entry, sentAt), false);
    }
  }

  /** Inserts in a caller's transaction, whose own timeouts limit the wait for a lock. */
  async insertInTransaction(db: Queryable, { entry, key }: PreparedJob): Promise<Inserted | null> {
    const { tables } = this.engine.store;
    if (key) return asKeyed(await insertKeyedEntry(db, tables, entry, key), key);
    const [inserted] = (await insertEntries(db, tables, [entry])) as (JobQueueEntry | null)[];
    return asInserted(inserted!, false);
  }

  /**
   * Runs `insert` in a transaction of the engine, and again while the template is locked.
   * @param isHostPaced whether it waits for the caller's source of contexts
   * @param first an entry of the transaction, used to find out whether it was committed
   */
  async insertBulk(
    insert: (db: Queryable, lockWaitMs: number) => Promise<void>,
    templateCode: string,
    isHostPaced: boolean,
    first: () => NewEntry,
  ): Promise<void> {
    const { db } = this.engine.store;
    // Longer than for a single insert, because no other call waits for this one.
    const lockWaitMs = db.queryTimeoutMs / 2;
    const attempt = async () => {
      try {
        return await this.recovery.commit((transaction) => insert(transaction, lockWaitMs), first, {
          isHostPaced,
        });
      } catch (error) {
        if (error instanceof TemplateLockedError) return BLOCKED;
        throw error;
      }
    };
    if ((await attempt()) === BLOCKED)
      await this.locks.run(`the template "${templateCode}"`, attempt, `bulk ${templateCode}`);
  }

  private batcher(isItemFault: (error: unknown) => boolean) {
    return new WriteBatcher<NewEntry, Inserted | null>({
      maxItems: ROWS_PER_SHARED_INSERT,
      bytesOf: ({ jobContext }) => jobContext.length,
      write: (entries) => this.insertTogether(entries),
      isItemFault,
      lockRetry: this.locks,
      lockOf: ({ named, jobRunIdentifier, retryOfJobRunId, jobTemplateId }) =>
        named
          ? { what: 'the jobRunIdentifier of a job', key: `name ${jobRunIdentifier}` }
          : retryOfJobRunId === null
            ? { what: 'the template of a job', key: `template ${jobTemplateId}` }
            : { what: 'the run of a job', key: `run ${retryOfJobRunId}` },
    });
  }

  private async insertTogether(entries: NewEntry[]) {
    const { db, tables } = this.engine.store;
    const notice = entries.some(isDue) ? this.wakeUps.piggyback() : null;
    const results = await insertEntries(
      notice ? db.followedBy(notice) : db,
      tables,
      entries,
      this.locks.lockWaitMs,
    );
    return results.map((result) =>
      result === BLOCKED ? BLOCKED : asInserted(result, notice !== null),
    );
  }

  /** Uses its own statement. Inserts once, even if the connection is lost meanwhile. */
  private async insertKeyed(entry: NewEntry, key: JobKey): Promise<Inserted | null> {
    const { db, tables } = this.engine.store;
    const sentAt = performance.now();
    const insert = (doubtMs?: number) =>
      this.locks.run(
        `the ${key.kind} key of a job`,
        () =>
          insertKeyedEntry(db, tables, entry, key, {
            lockWaitMs: this.locks.lockWaitMs,
            ...(doubtMs !== undefined && { doubtMs }),
          }),
        `${key.kind} ${entry.jobTemplateId} ${key.key}`,
      );
    try {
      return asKeyed(await insert(), key);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      const found = await this.recovery.repeat(entry.jobRunIdentifier, () =>
        insert(performance.now() - sentAt + 2 * db.queryTimeoutMs),
      );
      return asKeyed(found, key);
    }
  }
}

/** The template of a bulk insert is locked. */
export class TemplateLockedError extends Error {}

const isDue = ({ runAt, delayMs }: NewEntry) => runAt === null && delayMs === 0;

/** @throws DuplicateJobError */
function asKeyed(
  { outcome, entry }: { outcome: KeyedOutcome; entry: JobQueueEntry | null },
  key: JobKey,
): Inserted | null {
  if (!entry) return null;
  const isNew = outcome === 'added';
  if (!isNew && key.throws) throw new DuplicateJobError(entry.jobRunIdentifier, key.key);
  entry.deduplicated = !isNew;
  return { entry, isNew, isWritten: outcome !== 'taken', isNotified: false };
}

const asInserted = (entry: JobQueueEntry | null, isNotified: boolean): Inserted | null =>
  entry && { entry, isNew: true, isWritten: true, isNotified };
