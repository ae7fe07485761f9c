import type { EntityManager } from 'typeorm';
import { DuplicateJobError } from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import { encodeContext } from '../policy/context.js';
import type { CurrentTransaction } from '../store/ambient.js';
import {
  isUnknown,
  type ConnectionLostError,
} from '../store/connection/lost.js';
import { isConflict, isDataError } from '../store/database-error.js';
import { insertEntries, type NewEntry } from '../store/enqueue.store.js';
import type { JobQueueEntry } from '../store/entities/index.js';
import type { Queryable } from '../store/tables.js';
import { BulkInsert, checkedBatches } from './bulk-insert.js';
import {
  checkManager,
  entryFields,
  type EnqueueOptions,
} from './enqueue-options.js';
import { DoubtfulInserts } from './doubtful-inserts.js';
import { Gather } from './gather.js';
import type { Due } from './due.js';
import type { Store } from './store.js';
import type { JobReference, Templates } from './templates.js';

const ROWS_PER_SHARED_INSERT = 500;

/** What the engine knows of a call beside its options. */
export interface EnqueueCall {
  retryOfJobRunId?: string;
  /** Whether this node is to start the entry when it can. Not where the caller is about to. */
  wakeHere?: boolean;
}

/** The one door in: what comes through it is AVAILABLE, and its context is valid. */
export class Enqueue {
  /** Calls in flight together share one insert. */
  private readonly inserts = new Gather<NewEntry, Inserted>({
    most: ROWS_PER_SHARED_INSERT,
    bytesOf: ({ jobContext }) => jobContext.length,
    write: (drafts) => this.insertTogether(drafts),
    isSomeonesFault: (error) => isDataError(error) || isConflict(error),
  });

  private readonly doubtful: DoubtfulInserts;

  constructor(
    private readonly store: Store,
    private readonly templates: Templates,
    private readonly events: JobEvents,
    private readonly due: Due,
    private readonly maxContextBytes: number,
    private readonly current: CurrentTransaction,
  ) {
    this.doubtful = new DoubtfulInserts(store);
  }

  async one(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions = {},
    { retryOfJobRunId, wakeHere = true }: EnqueueCall = {},
  ): Promise<JobQueueEntry> {
    const manager = this.managerOf(options);
    const { template, contract } = await this.templates.resolve(job, manager);
    const fields = entryFields(template, options);
    const { json, value } = await encodeContext(
      contract,
      context,
      this.maxContextBytes,
    );
    const draft = {
      ...fields,
      jobContext: json,
      context: value,
      retryOfJobRunId: retryOfJobRunId ?? null,
    };
    if (manager) {
      // A caller's own transaction is never mixed with others.
      const entry = await this.own(manager, job.code, draft);
      if (!entry.scheduled) this.due.after(manager);
      return entry;
    }
    const { entry: inserted, told } = await this.insert(draft);
    const entry = inserted ?? (await this.again(job.code, draft));
    this.tell(job.code, [entry]);
    if (!entry.scheduled)
      this.due.now({ here: wakeHere, others: !inserted || !told });
    return entry;
  }

  /** All or none of them, in the order of the contexts. */
  async many(
    job: JobReference,
    contexts: readonly unknown[],
    options: Omit<EnqueueOptions, 'jobRunIdentifier'> = {},
  ): Promise<JobQueueEntry[]> {
    const manager = this.managerOf(options);
    const { template, contract } = await this.templates.resolve(job, manager);
    const defaults = entryFields(template, options);
    if (contexts.length === 0) return [];
    const inserts = new BulkInsert(
      this.store.tables,
      defaults,
      await checkedBatches(contract, contexts, this.maxContextBytes),
    );
    const insert = (db: Queryable) =>
      inserts.into(db, (db, draft) => this.refuse(db, job.code, draft));
    // In a caller's transaction this is a savepoint.
    await (manager?.transaction(insert) ?? this.committed(insert, inserts));
    const { entries } = inserts;
    if (!manager) this.tell(job.code, entries);
    if (entries.some(({ scheduled }) => !scheduled))
      if (manager) this.due.after(manager);
      else this.due.now();
    return entries;
  }

  /** The transaction that a call belongs to. */
  private managerOf(options: EnqueueOptions): EntityManager | undefined {
    const given = options?.manager;
    if (given === undefined) return this.current.manager;
    checkManager(given);
    return given ?? undefined;
  }

  /** Once, also where the connection is lost meanwhile. */
  private async insert(draft: NewEntry): Promise<Inserted> {
    const sentAt = performance.now();
    try {
      return await this.inserts.add(draft);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      return { entry: await this.doubtful.settle(draft, sentAt), told: false };
    }
  }

  private async insertTogether(drafts: NewEntry[]): Promise<Inserted[]> {
    const { db, tables } = this.store;
    const along = drafts.some(isDue) ? this.due.along() : null;
    const entries = await insertEntries(
      along ? db.followedBy(along) : db,
      tables,
      drafts,
    );
    return entries.map((entry) => ({ entry, told: along !== null }));
  }

  private async committed(
    insert: (db: Queryable) => Promise<void>,
    inserts: BulkInsert,
  ): Promise<void> {
    const sentAt = performance.now();
    try {
      await this.store.db.transaction(insert);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      // Sent was the COMMIT.
      if (!(await this.doubtful.wasCommitted(inserts.first!, sentAt)))
        throw (error as ConnectionLostError).undone();
    }
  }

  private async own(
    db: Queryable,
    code: string,
    draft: NewEntry,
  ): Promise<JobQueueEntry> {
    const [entry] = await insertEntries(db, this.store.tables, [draft]);
    return entry ?? this.refuse(db, code, draft);
  }

  /** A generated identifier is nobody else's: then the template was made anew since it was read. */
  private async again(code: string, draft: NewEntry): Promise<JobQueueEntry> {
    const { db } = this.store;
    if (draft.named) return this.refuse(db, code, draft);
    this.templates.forget(code);
    const { template } = await this.templates.resolve({ code });
    const anew = { ...draft, jobTemplateId: template.id };
    const { entry } = await this.insert(anew);
    return entry ?? this.refuse(db, code, anew);
  }

  /** Why it was left out: the template inactive or deleted since it was read, else the identifier taken. */
  private async refuse(
    db: Queryable,
    code: string,
    { jobRunIdentifier }: NewEntry,
  ): Promise<never> {
    this.templates.forget(code);
    await this.templates.resolve({ code }, db);
    throw new DuplicateJobError(jobRunIdentifier);
  }

  private tell(templateCode: string, entries: JobQueueEntry[]): void {
    for (const { id, jobRunIdentifier } of entries)
      this.events.emit('entry.enqueued', {
        jobQueueEntryId: id,
        jobRunIdentifier,
        templateCode,
      });
  }
}

interface Inserted {
  /** Null where it was left out. */
  entry: JobQueueEntry | null;
  /** Whether other processes were told of it along with the insert. */
  told: boolean;
}

const isDue = ({ runAt, delayMs }: NewEntry) => runAt === null && delayMs === 0;
