import type { EntityManager } from 'typeorm';
import { BLOCKED } from '../../concurrency/lock-retry.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { JobQueueEntry, JobRun } from '../../database/entities/index.js';
import type { Queryable } from '../../database/tables.js';
import type { CommitWatch } from '../../database/transactions/commit-watch.js';
import type { CurrentTransaction } from '../../database/transactions/current-transaction.js';
import { inTurn, runAtOnce } from '../../database/transactions/savepoint.js';
import { DuplicateJobError } from '../../job/errors.js';
import { JobTemplateNotFoundError } from '../../job/errors.js';
import type { WakeUps } from '../../notifications/wake-ups.js';
import type { ExtensionPoints } from '../extension-points.js';
import type { JobReference, Templates } from '../templates/templates.js';
import { BulkInsert, checkSource, type ContextSource } from './enqueue-bulk.js';
import type { BulkOptions, EnqueueOptions } from './enqueue-options.js';
import {
  findRunToRetry,
  insertEntries,
  type EntryReference,
  type NewEntry,
} from './enqueue.sql.js';
import { InsertEntries, TemplateLockedError, type Inserted } from './insert-entries.js';
import {
  PrepareEntry,
  type PreparedBulk,
  type PreparedJob,
  type RetriedRun,
} from './prepare-entry.js';

/** Internal options of an enqueue. */
export interface EnqueueCall {
  retryOf?: RetriedRun;
  /** Whether to wake this node. Default true; false if the caller starts the entry itself. */
  wakeHere?: boolean;
}

/**
 * Adds jobs to the queue. Every entry passes three stages: prepare (template, options, context), insert (one
 * statement), announce (events, wake-ups). Entries are inserted AVAILABLE, with a valid context.
 */
export class Enqueue {
  private readonly preparation: PrepareEntry;
  private readonly inserts: InsertEntries;

  constructor(
    private readonly engine: Pick<EngineContext, 'store' | 'events' | 'settings'>,
    private readonly templates: Templates,
    contexts: StoredContexts,
    private readonly extensions: ExtensionPoints,
    private readonly wakeUps: WakeUps,
    private readonly current: CurrentTransaction,
    private readonly commits: CommitWatch,
  ) {
    const { maxContextBytes } = engine.settings;
    this.preparation = new PrepareEntry(templates, contexts, extensions, maxContextBytes);
    this.inserts = new InsertEntries(engine, wakeUps);
  }

  enqueueJob(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions = {},
    call: EnqueueCall = {},
  ): Promise<JobQueueEntry> {
    const { active: around } = this.extensions.aroundEnqueue;
    return around
      ? around({ templateCode: job.code, bulk: false }, () =>
          this.enqueueOne(job, context, options, call),
        )
      : this.enqueueOne(job, context, options, call);
  }

  /** All or none, in the order of the contexts. An iterable is read as its entries are inserted. */
  enqueueJobs<Result extends EntryReference>(
    job: JobReference,
    contexts: ContextSource,
    options: BulkOptions,
    toResult: (entry: JobQueueEntry) => Result,
  ): Promise<Result[]> {
    const { active: around } = this.extensions.aroundEnqueue;
    return around
      ? around({ templateCode: job.code, bulk: true }, () =>
          this.enqueueMany(job, contexts, options, toResult),
        )
      : this.enqueueMany(job, contexts, options, toResult);
  }

  /**
   * Enqueues the job of a run again, with its stored context unless another one is given. The insert marks the run.
   * @param once refuse if the run was retried before, with DuplicateJobError
   * @throws JobTemplateNotFoundError, and as `enqueueJob`
   */
  async retryRun(
    run: Pick<JobRun, 'id' | 'jobTemplateId' | 'jobContext'>,
    context?: unknown,
    options: EnqueueOptions = {},
    once = false,
  ): Promise<JobQueueEntry> {
    const { db, tables } = this.engine.store;
    const found = await findRunToRetry(db, tables, run);
    if (!found) throw new JobTemplateNotFoundError(`template ${run.jobTemplateId}`);
    const { templateCode, stored } = found;
    const sameContext = context === undefined;
    return this.enqueueJob({ code: templateCode }, context ?? run.jobContext, options, {
      retryOf: { jobRunId: run.id, stored, sameContext, once },
    });
  }

  private async enqueueOne(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions,
    call: EnqueueCall,
  ): Promise<JobQueueEntry> {
    const manager = this.current.resolve(options?.manager);
    if (manager) return this.enqueueInTransaction(manager, job, context, options, call);
    const prepared = await this.preparation.prepareJob(job, context, options, call.retryOf);
    const inserted =
      (await this.inserts.insert(prepared)) ??
      (await this.insertAgain(prepared, () => this.inserts.insert(prepared)));
    this.announce(prepared.templateCode, inserted, call.wakeHere);
    return inserted.entry;
  }

  /** A caller's transaction shares no statement with other calls. After its end, an enqueue in it is refused. */
  private async enqueueInTransaction(
    manager: EntityManager,
    job: JobReference,
    context: unknown,
    options: EnqueueOptions,
    call: EnqueueCall,
  ): Promise<JobQueueEntry> {
    const checkOpen = this.current.guard(manager);
    const prepared = await this.preparation
      .prepareJob(job, context, options, call.retryOf, manager)
      .catch((error) => {
        checkOpen();
        throw error;
      });
    return inTurn(manager, async () => {
      checkOpen();
      const insert = () => this.inserts.insertInTransaction(manager, prepared);
      const inserted = (await insert()) ?? (await this.insertAgain(prepared, insert, manager));
      const { entry, isNew, isWritten } = inserted;
      if (isWritten && !entry.scheduled) this.wakeUps.wakeAfterCommit(manager);
      if (isNew) this.notifyAfterCommit(manager, prepared.templateCode, [entry]);
      return entry;
    });
  }

  private async enqueueMany<Result extends EntryReference>(
    job: JobReference,
    contexts: ContextSource,
    options: BulkOptions,
    toResult: (entry: JobQueueEntry) => Result,
  ): Promise<Result[]> {
    const manager = this.current.resolve(options?.manager);
    const checkOpen = manager ? this.current.guard(manager) : () => {};
    checkSource(contexts);
    const bulk = await this.preparation.prepareBulk(job, options, manager).catch((error) => {
      checkOpen();
      throw error;
    });
    const isArray = Array.isArray(contexts);
    if (isArray && contexts.length === 0) return [];
    const { maxContextBytes } = this.engine.settings;
    const insert = await BulkInsert.begin(bulk, contexts, maxContextBytes, toResult);
    const insertAll = (db: Queryable, lockWaitMs?: number) =>
      insert.insertAll(db, (db, entries) => {
        checkOpen();
        return this.insertBatch(db, bulk, entries, lockWaitMs);
      });
    try {
      if (manager)
        // A source that is read meanwhile may enqueue in the same transaction.
        await (isArray ? inTurn : runAtOnce)(manager, async () => {
          checkOpen();
          await manager.transaction((savepoint) => insertAll(savepoint));
        });
      else await this.inserts.insertBulk(insertAll, job.code, !isArray, () => insert.first!);
    } finally {
      await insert.close();
    }
    const { results, hasDue } = insert;
    if (manager) {
      if (hasDue) this.wakeUps.wakeAfterCommit(manager);
      this.notifyAfterCommit(manager, job.code, results);
    } else {
      this.emitEnqueued(job.code, results);
      if (hasDue) this.wakeUps.wake();
    }
    return results;
  }

  private async insertBatch(
    db: Queryable,
    bulk: PreparedBulk,
    entries: NewEntry[],
    lockWaitMs: number | undefined,
  ): Promise<JobQueueEntry[]> {
    const { tables } = this.engine.store;
    const inserted = await insertEntries(db, tables, entries, lockWaitMs);
    if (inserted.includes(null)) {
      const { template } = await this.templates.reload(bulk.templateCode, db);
      bulk.jobTemplateId = template.id;
      const refused = entries.filter((_entry, index) => inserted[index] === null);
      for (const entry of refused) entry.jobTemplateId = template.id;
      const again = await insertEntries(db, tables, refused, lockWaitMs);
      for (const [index, result] of inserted.entries())
        if (result === null) inserted[index] = again.shift()!;
    }
    return Promise.all(
      inserted.map(async (result, index) => {
        if (result === BLOCKED) throw new TemplateLockedError();
        return result ?? this.refuse(bulk.templateCode, entries[index]!, db);
      }),
    );
  }

  /**
   * Inserts a refused entry again if its template was deleted and created again since it was cached.
   * @throws JobTemplateNotFoundError, JobTemplateInactiveError; else DuplicateJobError
   */
  private async insertAgain(
    { templateCode, entry }: PreparedJob,
    insert: () => Promise<Inserted | null>,
    db?: Queryable,
  ): Promise<Inserted> {
    const { template } = await this.templates.reload(templateCode, db);
    // No other job has a generated identifier: the template was inactive for a moment.
    if (template.id !== entry.jobTemplateId || !(entry.named || entry.retryOnce)) {
      entry.jobTemplateId = template.id;
      const inserted = await insert();
      if (inserted) return inserted;
    }
    return this.refuse(templateCode, entry, db);
  }

  private async refuse(templateCode: string, entry: NewEntry, db?: Queryable): Promise<never> {
    await this.templates.reload(templateCode, db);
    throw new DuplicateJobError(entry.jobRunIdentifier);
  }

  private announce(templateCode: string, inserted: Inserted, wakeHere = true): void {
    const { entry, isNew, isWritten, isNotified } = inserted;
    if (isNew) this.emitEnqueued(templateCode, [entry]);
    if (isWritten && !entry.scheduled) this.wakeUps.wake({ here: wakeHere, others: !isNotified });
  }

  private emitEnqueued(templateCode: string, entries: readonly EntryReference[]): void {
    for (const { id, jobRunIdentifier } of entries)
      this.engine.events.emit('entry.enqueued', {
        jobQueueEntryId: id,
        jobRunIdentifier,
        templateCode,
      });
    if (this.extensions.afterEnqueueCommit.active) this.notifyCommitted(templateCode, entries);
  }

  private notifyAfterCommit(
    manager: EntityManager,
    templateCode: string,
    entries: readonly EntryReference[],
  ): void {
    if (!this.extensions.afterEnqueueCommit.active) return;
    this.commits.afterCommit(manager, () => this.notifyCommitted(templateCode, entries));
  }

  private notifyCommitted(templateCode: string, entries: readonly EntryReference[]): void {
    for (const hook of this.extensions.afterEnqueueCommit.active ?? [])
      try {
        hook(templateCode, entries);
      } catch (error) {
        this.engine.events.emit('engine.error', { doing: 'announcing enqueued jobs', error });
      }
  }
}
