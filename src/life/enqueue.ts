import {
  DuplicateJobError,
  InvalidJobContextError,
  type ContextViolation,
} from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import { encodeContext, type ContextContract } from '../policy/context.js';
import { isConflict, isDataError } from '../store/database-error.js';
import { insertEntries, type NewEntry } from '../store/enqueue.store.js';
import type { JobQueueEntry } from '../store/entities/index.js';
import type { Queryable } from '../store/tables.js';
import { entryFields, type EnqueueOptions } from './enqueue-options.js';
import { batchLength, Gather } from './gather.js';
import type { Store } from './store.js';
import type { JobReference, Templates } from './templates.js';

/** Rows per statement: larger ones were slower (docs/performance.md). */
const ROWS_PER_INSERT = 5_000;
const ROWS_PER_SHARED_INSERT = 500;
const MAX_VIOLATIONS = 100;

const bytesOf = ({ jobContext }: NewEntry) => jobContext.length;

export interface EnqueueLink {
  retryOfJobRunId?: string;
}

/** The one door in: what comes through it is AVAILABLE, and its context is valid. */
export class Enqueue {
  /** Calls in flight together share one insert. */
  private readonly inserts = new Gather<NewEntry, JobQueueEntry | null>({
    most: ROWS_PER_SHARED_INSERT,
    bytesOf,
    write: (drafts) =>
      insertEntries(this.store.dataSource, this.store.tables, drafts),
    isSomeonesFault: (error) => isDataError(error) || isConflict(error),
  });

  constructor(
    private readonly store: Store,
    private readonly templates: Templates,
    private readonly events: JobEvents,
    private readonly maxContextBytes: number,
  ) {}

  async one(
    job: JobReference,
    context: unknown,
    options: EnqueueOptions = {},
    { retryOfJobRunId }: EnqueueLink = {},
  ): Promise<JobQueueEntry> {
    const { template, contract } = await this.templates.resolve(
      job,
      options.manager,
    );
    const fields = entryFields(template, options);
    const jobContext = await encodeContext(
      contract,
      context,
      this.maxContextBytes,
    );
    const draft = {
      ...fields,
      jobContext,
      retryOfJobRunId: retryOfJobRunId ?? null,
    };
    // A caller's own transaction is never mixed with others.
    if (options.manager) return this.own(options.manager, job.code, draft);
    const entry =
      (await this.inserts.add(draft)) ?? (await this.again(job.code, draft));
    this.tell(job.code, [entry]);
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
    const jobContexts = await this.encodeAll(contract, contexts);
    const batch = jobContexts.map((jobContext) => ({
      ...entryFields(template, options),
      jobContext,
    }));
    if (batch.length === 0) return [];
    // In a caller's transaction this is a savepoint.
    const entries = await (
      options.manager ?? this.store.dataSource
    ).transaction((manager) => this.insertAll(manager, job.code, batch));
    if (!options.manager) this.tell(job.code, entries);
    return entries;
  }

  private async encodeAll(
    contract: ContextContract,
    contexts: readonly unknown[],
  ): Promise<string[]> {
    const encoded: string[] = [];
    const violations: ContextViolation[] = [];
    for (const [index, context] of contexts.entries())
      try {
        encoded.push(
          await encodeContext(contract, context, this.maxContextBytes),
        );
      } catch (error) {
        if (!(error instanceof InvalidJobContextError)) throw error;
        for (const { path, message } of error.violations)
          violations.push({
            path: path ? `[${index}].${path}` : `[${index}]`,
            message,
          });
        if (violations.length >= MAX_VIOLATIONS) break;
      }
    if (violations.length > 0) throw new InvalidJobContextError(violations);
    return encoded;
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
    const { dataSource } = this.store;
    if (draft.named) return this.refuse(dataSource, code, draft);
    this.templates.forget(code);
    const { template } = await this.templates.resolve({ code });
    return this.own(dataSource, code, { ...draft, jobTemplateId: template.id });
  }

  private async insertAll(
    db: Queryable,
    code: string,
    drafts: NewEntry[],
  ): Promise<JobQueueEntry[]> {
    const inserted: JobQueueEntry[] = [];
    while (inserted.length < drafts.length) {
      const rest = drafts.slice(
        inserted.length,
        inserted.length + ROWS_PER_INSERT,
      );
      const batch = rest.slice(0, batchLength(rest, ROWS_PER_INSERT, bytesOf));
      for (const [index, entry] of (
        await insertEntries(db, this.store.tables, batch)
      ).entries())
        inserted.push(entry ?? (await this.refuse(db, code, batch[index]!)));
    }
    return inserted;
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
