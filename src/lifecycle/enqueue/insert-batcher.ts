import { isUnknown } from '../../database/connection/connection-errors.js';
import { isConflict, isDataError } from '../../database/database-error.js';
import { insertEntries, type NewEntry } from './enqueue.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import { WriteBatcher } from '../../concurrency/write-batcher.js';
import type { Store } from '../../database/store.js';
import type { DoubtfulInserts } from './insert-recovery.js';
import type { EnqueueNews } from './enqueue-notifier.js';
import type { LockRetry } from '../../concurrency/lock-retry.js';

const ROWS_PER_SHARED_INSERT = 500;

export interface Inserted {
  /** Null where it was left out. */
  entry: JobQueueEntry | null;
  /** Whether other processes were told of it along with the insert. */
  told: boolean;
}

/**
 * Inserts outside of transactions: calls in flight together share one. A chosen name may be that of a transaction which
 * is left open, and makes an insert wait for it: those with such a name keep nobody waiting whose job has none.
 */
export class SharedInserts {
  private readonly generated = this.gather(isRowsFault);
  private readonly named = this.gather(isDataError, () => this.locks.lockWaitMs);

  constructor(
    private readonly store: Store,
    private readonly doubtful: DoubtfulInserts,
    private readonly news: EnqueueNews,
    private readonly locks: LockRetry,
  ) {}

  /**
   * Once, also where the connection is lost meanwhile.
   * @throws BildadDatabaseError when another transaction holds the name for too long; EnqueueOutcomeUnknownError
   */
  async add(draft: NewEntry): Promise<Inserted> {
    const sentAt = performance.now();
    try {
      return draft.named ? await this.addNamed(draft) : await this.generated.add(draft);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      return { entry: await this.doubtful.settle(draft, sentAt), told: false };
    }
  }

  /** Attempts at what puts in a name of the caller's choice by itself. */
  patiently<T>(attempt: (lockWaitMs: number) => Promise<T>): Promise<T> {
    const { lockWaitMs } = this.locks;
    return this.locks.run('the jobRunIdentifier of a job', () => attempt(lockWaitMs));
  }

  /** Where one of them has to wait, none was put in: then each by itself. */
  private async addNamed(draft: NewEntry): Promise<Inserted> {
    try {
      return await this.named.add(draft);
    } catch (error) {
      if (!this.locks.isLocked(error)) throw error;
    }
    const { db, tables } = this.store;
    return this.patiently(async (lockWaitMs) => {
      const [entry] = await insertEntries(db, tables, [draft], lockWaitMs);
      return { entry: entry ?? null, told: false };
    });
  }

  private gather(isItemFault: (error: unknown) => boolean, lockWaitMs?: () => number) {
    return new WriteBatcher<NewEntry, Inserted>({
      maxItems: ROWS_PER_SHARED_INSERT,
      bytesOf: ({ jobContext }) => jobContext.length,
      write: (drafts) => this.together(drafts, lockWaitMs?.()),
      isItemFault,
    });
  }

  private async together(drafts: NewEntry[], lockWaitMs: number | undefined): Promise<Inserted[]> {
    const { db, tables } = this.store;
    const along = this.news.along(drafts.some(isDue));
    const entries = await insertEntries(
      along ? db.followedBy(along) : db,
      tables,
      drafts,
      lockWaitMs,
    );
    return entries.map((entry) => ({ entry, told: along !== null }));
  }
}

const isRowsFault = (error: unknown) => isDataError(error) || isConflict(error);

const isDue = ({ runAt, delayMs }: NewEntry) => runAt === null && delayMs === 0;
