import { DuplicateJobError } from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import { encodeContext } from '../policy/context.js';
import {
  isUnknown,
  type ConnectionLostError,
} from '../store/connection/lost.js';
import { isConflict, isDataError } from '../store/database-error.js';
import { insertEntries, type NewEntry } from '../store/enqueue.store.js';
import type { JobQueueEntry } from '../store/entities/index.js';
import type { Queryable } from '../store/tables.js';
import { asOfNow, type StoredRunContext } from './again.js';
import { carriedBy, type Carried } from './carried.js';
import { BulkInsert, checkedBatches } from './bulk-insert.js';
import { entryFields, type EnqueueOptions } from './enqueue-options.js';
import { DoubtfulInserts } from './doubtful-inserts.js';
import { Gather } from './gather.js';
import type { Due } from './due.js';
import type { Store } from './store.js';
import type { StoredContexts } from './stored-contexts.js';
import type { JobReference, Templates } from './templates.js';

const ROWS_PER_SHARED_INSERT = 500;

/** What the engine knows of a call beside its options. */
export interface EnqueueCall {
  retryOfJobRunId?: string;
  /** What was stored of the run that is done again, where its context is to be the same. */
  again?: StoredRunContext;
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
    private readonly contexts: StoredContexts,
    private readonly maxContextBytes: number,
  ) {
    this.doubtful = new DoubtfulInserts(store);
  }

  async one(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions = {},
    { retryOfJobRunId, wakeHere = true, again }: EnqueueCall = {},
  ): Promise<JobQueueEntry> {
    const open = await this.templates.resolve(job, options.manager);
    const fields = entryFields(open.template, options);
    const given = again
      ? await asOfNow(again, open, this.contexts)
      : { context, contract: open.contract, version: open.traits.version };
    const { json, value } = await encodeContext(
      given.contract,
      given.context,
      this.maxContextBytes,
    );
    const plain = {
      ...fields,
      jobContext: json,
      context: value,
      retryOfJobRunId: retryOfJobRunId ?? null,
    };
    const carried = carriedBy(this.contexts, open, options, given.version);
    const draft = carried?.wrap(plain) ?? plain;
    if (carried?.startBy)
      return this.startingBy(carried, job.code, draft, options, wakeHere);
    if (options.manager) {
      // A caller's own transaction is never mixed with others.
      const entry = await this.own(options.manager, job.code, draft);
      if (!entry.scheduled) this.due.after(options.manager);
      return entry;
    }
    const { entry: inserted, told } = await this.insert(draft);
    const entry = inserted ?? (await this.again(job.code, draft));
    this.tell(job.code, [entry]);
    if (!entry.scheduled)
      this.due.now({ here: wakeHere, others: !inserted || !told });
    return entry;
  }

  /** Two statements, in a transaction of their own where there is none. */
  private async startingBy(
    carried: Carried,
    code: string,
    draft: NewEntry,
    { manager }: EnqueueOptions,
    wakeHere: boolean,
  ): Promise<JobQueueEntry> {
    let made: JobQueueEntry | undefined;
    const insert = async (db: Queryable) => {
      made = await this.own(db, code, draft);
      await carried.mark(db, this.store.tables, [made]);
    };
    await (manager ? insert(manager) : this.committed(insert, () => draft));
    const entry = made!;
    if (!manager) this.tell(code, [entry]);
    if (!entry.scheduled)
      if (manager) this.due.after(manager);
      else this.due.now({ here: wakeHere });
    return entry;
  }

  /** All or none of them, in the order of the contexts. */
  async many(
    job: JobReference,
    contexts: readonly unknown[],
    options: Omit<EnqueueOptions, 'jobRunIdentifier'> = {},
  ): Promise<JobQueueEntry[]> {
    const open = await this.templates.resolve(job, options.manager);
    const { contract } = open;
    const defaults = entryFields(open.template, options);
    if (contexts.length === 0) return [];
    const inserts = new BulkInsert(
      this.store.tables,
      defaults,
      await checkedBatches(contract, contexts, this.maxContextBytes),
      carriedBy(this.contexts, open, options),
    );
    const insert = (db: Queryable) =>
      inserts.into(db, (db, draft) => this.refuse(db, job.code, draft));
    // In a caller's transaction this is a savepoint.
    await (options.manager?.transaction(insert) ??
      this.committed(insert, () => inserts.first!));
    const { entries } = inserts;
    if (!options.manager) this.tell(job.code, entries);
    if (entries.some(({ scheduled }) => !scheduled))
      if (options.manager) this.due.after(options.manager);
      else this.due.now();
    return entries;
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
    first: () => NewEntry,
  ): Promise<void> {
    const sentAt = performance.now();
    try {
      await this.store.db.transaction(insert);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      // Sent was the COMMIT.
      if (!(await this.doubtful.wasCommitted(first(), sentAt)))
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
