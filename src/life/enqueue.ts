import { DuplicateJobError } from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import { encodeContext, type ContextContract } from '../policy/context.js';
import {
  isUnknown,
  type ConnectionLostError,
} from '../store/connection/lost.js';
import { isConflict, isDataError } from '../store/database-error.js';
import { insertEntries, type NewEntry } from '../store/enqueue.store.js';
import type { JobQueueEntry } from '../store/entities/index.js';
import type { Queryable } from '../store/tables.js';
import { encodedBatches, type EncodedContext } from './encode-contexts.js';
import {
  entryFields,
  type EnqueueOptions,
  type EntryDefaults,
} from './enqueue-options.js';
import { DoubtfulInserts } from './doubtful-inserts.js';
import { Gather } from './gather.js';
import { newIdentifier } from './identifier.js';
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
  private readonly inserts = new Gather<NewEntry, JobQueueEntry | null>({
    most: ROWS_PER_SHARED_INSERT,
    bytesOf: ({ jobContext }) => jobContext.length,
    write: (drafts) => insertEntries(this.store.db, this.store.tables, drafts),
    isSomeonesFault: (error) => isDataError(error) || isConflict(error),
  });

  private readonly doubtful: DoubtfulInserts;

  constructor(
    private readonly store: Store,
    private readonly templates: Templates,
    private readonly events: JobEvents,
    private readonly due: Due,
    private readonly maxContextBytes: number,
  ) {
    this.doubtful = new DoubtfulInserts(store);
  }

  async one(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions = {},
    { retryOfJobRunId, wakeHere = true }: EnqueueCall = {},
  ): Promise<JobQueueEntry> {
    const { template, contract } = await this.templates.resolve(
      job,
      options.manager,
    );
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
    if (options.manager) {
      // A caller's own transaction is never mixed with others.
      const entry = await this.own(options.manager, job.code, draft);
      if (!entry.scheduled) this.due.after(options.manager);
      return entry;
    }
    const entry =
      (await this.insert(draft)) ?? (await this.again(job.code, draft));
    this.tell(job.code, [entry]);
    if (!entry.scheduled) this.due.now({ here: wakeHere });
    return entry;
  }

  /** All or none of them, in the order of the contexts. */
  async many(
    job: JobReference,
    contexts: readonly unknown[],
    options: Omit<EnqueueOptions, 'jobRunIdentifier'> = {},
  ): Promise<JobQueueEntry[]> {
    const { template, contract } = await this.templates.resolve(
      job,
      options.manager,
    );
    const defaults = entryFields(template, options);
    if (contexts.length === 0) return [];
    const batches = await this.batches(contract, contexts);
    const inserts = new Inserts();
    const insert = (db: Queryable) =>
      this.insertAll(db, job.code, defaults, batches, inserts);
    // In a caller's transaction this is a savepoint.
    await (options.manager?.transaction(insert) ??
      this.committed(insert, inserts));
    const { entries } = inserts;
    if (!options.manager) this.tell(job.code, entries);
    if (entries.some(({ scheduled }) => !scheduled))
      if (options.manager) this.due.after(options.manager);
      else this.due.now();
    return entries;
  }

  /** Once, also where the connection is lost meanwhile. @returns null where it was left out */
  private async insert(draft: NewEntry): Promise<JobQueueEntry | null> {
    const sentAt = performance.now();
    try {
      return await this.inserts.add(draft);
    } catch (error) {
      if (!isUnknown(error)) throw error;
      return this.doubtful.settle(draft, sentAt);
    }
  }

  private async committed(
    insert: (db: Queryable) => Promise<void>,
    inserts: Inserts,
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
    return (await this.insert(anew)) ?? this.refuse(db, code, anew);
  }

  /**
   * The first batch is checked before a transaction begins, the others while those before them are inserted; but
   * all of them before where a validator may wait for a connection that the transactions hold.
   */
  private async batches(
    contract: ContextContract,
    contexts: readonly unknown[],
  ): Promise<AsyncIterable<EncodedContext[]>> {
    const batches = encodedBatches(contract, contexts, this.maxContextBytes);
    const checked: EncodedContext[][] = [];
    do {
      const next = await batches.next();
      if (next.done) break;
      checked.push(next.value);
    } while (!contract.selfContained);
    return (async function* () {
      yield* checked;
      yield* batches;
    })();
  }

  private async insertAll(
    db: Queryable,
    code: string,
    defaults: EntryDefaults,
    batches: AsyncIterable<EncodedContext[]>,
    inserts: Inserts,
  ): Promise<void> {
    const insert = async (contexts: EncodedContext[]) => {
      const drafts = contexts.map((encoded) => ({
        ...defaults,
        ...encoded,
        jobRunIdentifier: newIdentifier(),
      }));
      inserts.first ??= drafts[0];
      const entries = await insertEntries(db, this.store.tables, drafts);
      for (const [index, entry] of entries.entries())
        inserts.entries.push(
          entry ?? (await this.refuse(db, code, drafts[index]!)),
        );
    };
    let inserting = Promise.resolve();
    try {
      for await (const contexts of batches) {
        await inserting;
        inserting = insert(contexts);
        // Its rejection is met by the next `await`, which a long check may keep waiting.
        inserting.catch(() => undefined);
      }
    } finally {
      // Nobody may roll back while a statement is under way.
      await inserting;
    }
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

/** What a transaction has put in so far. */
class Inserts {
  readonly entries: JobQueueEntry[] = [];
  /** It stands for all of them where nobody knows whether they were committed. */
  first: NewEntry | undefined;
}
