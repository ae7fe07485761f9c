import type { CurrentTransaction } from '../../database/transactions/current-transaction.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import type { Queryable } from '../../database/tables.js';
import { inTurn, outOfTurn } from '../../database/transactions/transaction-mutex.js';
import { BulkInsert, checkedBatches } from './bulk-insert.js';
import type { EntryReference } from './enqueue.sql.js';
import { carriedBy } from './entry-envelope.js';
import { checkSource, type ContextSource } from './context-source.js';
import type { DoubtfulInserts } from './insert-recovery.js';
import type { EnqueueNews } from './enqueue-notifier.js';
import { entryFields, type BulkOptions } from './enqueue-options.js';
import type { LeftOut } from './insert-rejection.js';
import type { Store } from '../../database/store.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import type { JobReference, Templates } from '../templates/templates.js';

/** Many jobs of one kind, in one transaction. */
export class EnqueueMany {
  constructor(
    private readonly store: Store,
    private readonly templates: Templates,
    private readonly contexts: StoredContexts,
    private readonly extensions: ExtensionPoints,
    private readonly maxContextBytes: number,
    private readonly current: CurrentTransaction,
    private readonly doubtful: DoubtfulInserts,
    private readonly leftOut: LeftOut,
    private readonly news: EnqueueNews,
  ) {}

  /** All or none of them, in the order of the contexts. What is no array is read as it is inserted. */
  add<Told extends EntryReference>(
    job: JobReference,
    contexts: ContextSource,
    options: BulkOptions,
    asTold: (entry: JobQueueEntry) => Told,
  ): Promise<Told[]> {
    const { active: around } = this.extensions.aroundEnqueue;
    return around
      ? around({ templateCode: job.code, bulk: true }, () =>
          this.put(job, contexts, options, asTold),
        )
      : this.put(job, contexts, options, asTold);
  }

  private async put<Told extends EntryReference>(
    job: JobReference,
    contexts: ContextSource,
    options: BulkOptions,
    asTold: (entry: JobQueueEntry) => Told,
  ): Promise<Told[]> {
    const captured = this.extensions.captureCarried();
    checkSource(contexts);
    const manager = this.current.of(options?.manager);
    const check = manager ? this.current.guard(manager) : () => {};
    const open = await this.templates.resolve(job, manager).catch((error) => {
      check();
      throw error;
    });
    const defaults = entryFields(open.template, options);
    if (Array.isArray(contexts) && contexts.length === 0) return [];
    const batches = await checkedBatches(open.contract, contexts, this.maxContextBytes);
    const inserts = new BulkInsert(
      this.store.tables,
      defaults,
      batches,
      asTold,
      carriedBy(this.contexts, open, options, captured),
      check,
    );
    const insert = (db: Queryable) =>
      inserts.into(db, (db, draft) => this.leftOut.refuse(db, job.code, draft));
    try {
      // In a caller's transaction this is a savepoint.
      await (manager
        ? // A source that is read meanwhile may enqueue in the same transaction.
          (Array.isArray(contexts) ? inTurn : outOfTurn)(manager, async () => {
            check();
            await manager.transaction(insert);
          })
        : this.doubtful.committed(insert, () => inserts.first!, {
            isHostPaced: !Array.isArray(contexts),
          }));
    } finally {
      await batches.close();
    }
    if (!manager) this.news.tell(job.code, inserts.told);
    this.news.wake(inserts.due, manager);
    return inserts.told;
  }
}
