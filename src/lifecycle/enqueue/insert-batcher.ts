import { isUnknown } from '../../database/connection/connection-errors.js';
import { isConflict, isDataError } from '../../database/database-error.js';
import { insertEntries, type NewEntry } from './enqueue.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import { Gather } from '../../concurrency/write-batcher.js';
import type { Store } from '../../database/store.js';
import type { DoubtfulInserts } from './insert-recovery.js';
import type { EnqueueNews } from './enqueue-notifier.js';
import { isInTheWay, type LockPatience } from '../../database/lock-retry.js';

const ROWS_PER_SHARED_INSERT = 500;
/** Those who come meanwhile wait as well. A transaction that enqueues, and does nothing else, is over by then. */
const NAME_WAIT_MS = 50;

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
  private readonly named = this.gather(isDataError, () => this.nameWaitMs);

  constructor(
    private readonly store: Store,
    private readonly doubtful: DoubtfulInserts,
    private readonly news: EnqueueNews,
    private readonly locks: LockPatience,
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
    return this.locks.until('the jobRunIdentifier', () => attempt(this.nameWaitMs));
  }

  private get nameWaitMs(): number {
    return this.locks.lockWaitMs(NAME_WAIT_MS);
  }

  /** Where one of them has to wait, none was put in: then each by itself. */
  private async addNamed(draft: NewEntry): Promise<Inserted> {
    try {
      return await this.named.add(draft);
    } catch (error) {
      if (!isInTheWay(error)) throw error;
    }
    const { db, tables } = this.store;
    return this.patiently(async (lockWaitMs) => {
      const [entry] = await insertEntries(db, tables, [draft], lockWaitMs);
      return { entry: entry ?? null, told: false };
    });
  }

  private gather(isSomeonesFault: (error: unknown) => boolean, lockWaitMs?: () => number) {
    return new Gather<NewEntry, Inserted>({
      most: ROWS_PER_SHARED_INSERT,
      bytesOf: ({ jobContext }) => jobContext.length,
      write: (drafts) => this.together(drafts, lockWaitMs?.()),
      isSomeonesFault,
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
