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
import {
  BulkInsert,
  checkedBatches,
  type EntryReference,
} from './bulk-insert.js';
import { carriedBy, type Carried } from './carried.js';
import { checkSource, type ContextSource } from './context-source.js';
import {
  entryFields,
  type BulkOptions,
  type EnqueueOptions,
} from './enqueue-options.js';
import { DoubtfulInserts } from './doubtful-inserts.js';
import { KeyedInserts } from './enqueue-keyed.js';
import { Gather } from './gather.js';
import type { Due } from './due.js';
import {
  identityOf,
  refuseCarried,
  type Identity,
} from './identity-options.js';
import { LeftOut } from './left-out.js';
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
  private readonly keyed: KeyedInserts;
  private readonly leftOut: LeftOut;

  constructor(
    private readonly store: Store,
    private readonly templates: Templates,
    private readonly events: JobEvents,
    private readonly due: Due,
    private readonly contexts: StoredContexts,
    private readonly maxContextBytes: number,
  ) {
    this.doubtful = new DoubtfulInserts(store);
    this.leftOut = new LeftOut(templates);
    this.keyed = new KeyedInserts(store, this.doubtful);
  }

  async one(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions = {},
    { retryOfJobRunId, wakeHere = true, again }: EnqueueCall = {},
  ): Promise<JobQueueEntry> {
    const open = await this.templates.resolve(job, options.manager);
    const fields = entryFields(open.template, options);
    const identity = identityOf(options);
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
    if (identity) {
      if (carried) refuseCarried(carried, identity);
      return this.underKey(job.code, draft, identity, options, wakeHere);
    }
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

  /** All or none of them, in the order of the contexts. What is no array is read as it is inserted. */
  async many<Told extends EntryReference>(
    job: JobReference,
    contexts: ContextSource,
    options: BulkOptions,
    asTold: (entry: JobQueueEntry) => Told,
  ): Promise<Told[]> {
    checkSource(contexts);
    const { manager } = options;
    const open = await this.templates.resolve(job, manager);
    const defaults = entryFields(open.template, options);
    if (Array.isArray(contexts) && contexts.length === 0) return [];
    const batches = await checkedBatches(
      open.contract,
      contexts,
      this.maxContextBytes,
    );
    const inserts = new BulkInsert(
      this.store.tables,
      defaults,
      batches,
      asTold,
      carriedBy(this.contexts, open, options),
    );
    const insert = (db: Queryable) =>
      inserts.into(db, (db, draft) => this.leftOut.refuse(db, job.code, draft));
    try {
      // In a caller's transaction this is a savepoint.
      await (manager?.transaction(insert) ??
        this.committed(insert, () => inserts.first!));
    } finally {
      await batches.close();
    }
    if (!manager) this.tell(job.code, inserts.told);
    if (inserts.due)
      if (manager) this.due.after(manager);
      else this.due.now();
    return inserts.told;
  }

  private async underKey(
    code: string,
    draft: NewEntry,
    identity: Identity,
    { manager }: EnqueueOptions,
    wakeHere: boolean,
  ): Promise<JobQueueEntry> {
    const keyed = await this.keyed.insert(
      draft,
      identity,
      (draft) => this.leftOut.anew(code, draft, manager),
      manager,
    );
    if (!keyed)
      return this.leftOut.refuse(manager ?? this.store.db, code, draft);
    const { entry, added, written } = keyed;
    if (added && !manager) this.tell(code, [entry]);
    if (!written || entry.scheduled) return entry;
    if (manager) this.due.after(manager);
    else this.due.now({ here: wakeHere, others: true });
    return entry;
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
    return entry ?? this.leftOut.refuse(db, code, draft);
  }

  /** A generated identifier is nobody else's: then the template was made anew since it was read. */
  private async again(code: string, draft: NewEntry): Promise<JobQueueEntry> {
    const { db } = this.store;
    if (draft.named) return this.leftOut.refuse(db, code, draft);
    const anew = await this.leftOut.anew(code, draft);
    const { entry } = await this.insert(anew);
    return entry ?? this.leftOut.refuse(db, code, anew);
  }

  private tell(templateCode: string, entries: EntryReference[]): void {
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
