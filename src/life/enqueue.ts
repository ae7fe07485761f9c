import {
  DuplicateJobError,
  InvalidJobContextError,
  type ContextViolation,
} from '../model/errors.js';
import type { JobEvents } from '../model/events.js';
import { encodeContext, type ContextContract } from '../policy/context.js';
import { insertEntries, type NewEntry } from '../store/enqueue.store.js';
import type { JobQueueEntry } from '../store/entities/index.js';
import type { Queryable } from '../store/tables.js';
import { entryFields, type EnqueueOptions } from './enqueue-options.js';
import type { Store } from './store.js';
import type { JobReference, Templates } from './templates.js';

/** Rows per statement: larger ones were slower (docs/performance.md). */
const ROWS_PER_INSERT = 5_000;
const MAX_VIOLATIONS = 100;

export interface EnqueueLink {
  retryOfJobRunId?: string;
}

/** The one door in: what comes through it is AVAILABLE, and its context is valid. */
export class Enqueue {
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
    const { template, contract } = await this.templates.resolve(job);
    const fields = entryFields(template, options);
    const jobContext = await encodeContext(
      contract,
      context,
      this.maxContextBytes,
    );
    const [entry] = await this.insert(
      options.manager ?? this.store.dataSource,
      job.code,
      [{ ...fields, jobContext, retryOfJobRunId: retryOfJobRunId ?? null }],
    );
    if (!options.manager) this.tell(job.code, [entry!]);
    return entry!;
  }

  /** All or none of them, in the order of the contexts. */
  async many(
    job: JobReference,
    contexts: readonly unknown[],
    options: Omit<EnqueueOptions, 'jobRunIdentifier'> = {},
  ): Promise<JobQueueEntry[]> {
    const { template, contract } = await this.templates.resolve(job);
    const jobContexts = await this.encodeAll(contract, contexts);
    const batch = jobContexts.map((jobContext) => ({
      ...entryFields(template, options),
      jobContext,
    }));
    if (batch.length === 0) return [];
    // In a caller's transaction this is a savepoint.
    const entries = await (
      options.manager ?? this.store.dataSource
    ).transaction(async (manager) => {
      const inserted: JobQueueEntry[] = [];
      for (let at = 0; at < batch.length; at += ROWS_PER_INSERT)
        inserted.push(
          ...(await this.insert(
            manager,
            job.code,
            batch.slice(at, at + ROWS_PER_INSERT),
          )),
        );
      return inserted;
    });
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

  private async insert(
    db: Queryable,
    code: string,
    batch: NewEntry[],
  ): Promise<JobQueueEntry[]> {
    const inserted = await insertEntries(db, this.store.tables, batch);
    const refused = inserted.indexOf(null);
    if (refused < 0) return inserted as JobQueueEntry[];
    // Inactive or deleted since it was read: say that, not "duplicate".
    this.templates.forget(code);
    await this.templates.resolve({ code });
    throw new DuplicateJobError(batch[refused]!.jobRunIdentifier);
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
