import { JobNotAvailableError } from '../job/errors.js';
import { encodeContext } from '../context/context-contract.js';
import { changeEntry, type EntryChanges } from './change-entry.sql.js';
import type { CurrentTransaction } from '../database/transactions/current-transaction.js';
import type { JobQueueEntry } from '../database/entities/index.js';
import { KEPT_BACK } from '../database/migrations/baseline/job-keys.js';
import { findEntry } from '../lifecycle/run/run.sql.js';
import type { Queryable } from '../database/tables.js';
import { findTemplate } from '../lifecycle/templates/template.sql.js';
import { wrappingOf } from '../lifecycle/enqueue/prepare-entry.js';
import type { WakeUps } from '../notifications/wake-ups.js';
import type { Store } from '../database/store.js';
import type { StoredContexts } from '../context/stored-contexts.js';
import type { Templates } from '../lifecycle/templates/templates.js';

/** What is still AVAILABLE may be changed; the statement that changes it makes sure that it is. */
export class ChangeJobs {
  constructor(
    private readonly store: Store,
    private readonly templates: Templates,
    private readonly wakeUps: WakeUps,
    private readonly contexts: StoredContexts,
    private readonly maxContextBytes: number,
    private readonly current: CurrentTransaction,
  ) {}

  /**
   * @param context undefined: it stays
   * @throws JobNotAvailableError, InvalidJobContextError: nothing was changed then
   */
  async entry(entryId: string, changes: EntryChanges, context?: unknown): Promise<JobQueueEntry> {
    const { tables } = this.store;
    const { manager } = this.current;
    const db = manager ?? this.store.db;
    const encoded =
      context === undefined
        ? changes
        : {
            ...changes,
            jobContext: await this.encoded(await this.available(entryId, db), context, db),
          };
    const changed =
      (await changeEntry(db, tables, entryId, encoded)) ?? (await this.refuse(entryId, db));
    if (!changed.scheduled)
      if (manager) this.wakeUps.wakeAfterCommit(manager);
      else this.wakeUps.wake();
    return changed;
  }

  private async encoded(
    { jobTemplateId, jobRunIdentifier, startBefore }: JobQueueEntry,
    context: unknown,
    db: Queryable,
  ): Promise<string> {
    const { tables } = this.store;
    const template = await findTemplate(db, tables, { id: jobTemplateId });
    const code = template?.code ?? `template ${jobTemplateId}`;
    const open = await this.templates.resolve({ code }, db);
    const { json } = await encodeContext(open.contract, context, this.maxContextBytes);
    const wrapping = wrappingOf(open, startBefore !== null);
    return wrapping ? this.contexts.wrapJson(json, wrapping, jobRunIdentifier) : json;
  }

  private async available(entryId: string, db: Queryable): Promise<JobQueueEntry> {
    const { tables } = this.store;
    const entry = await findEntry(db, tables, { id: entryId });
    return entry?.status === 'AVAILABLE' ? entry : this.refuse(entryId, db);
  }

  private async refuse(entryId: string, db: Queryable): Promise<never> {
    const { tables } = this.store;
    const entry = await findEntry(db, tables, { id: entryId });
    throw new JobNotAvailableError(
      entry?.jobRunIdentifier ?? `entry ${entryId}`,
      entry
        ? `it is ${held(entry)}, or was just now: nothing was changed`
        : 'it is not in the queue',
    );
  }
}

function held({ status, runAt, startBefore }: JobQueueEntry): string {
  if (status !== 'AVAILABLE') return status;
  return startBefore && runAt.toISOString() !== KEPT_BACK
    ? `to be started before ${startBefore.toISOString()}, and not at all from then on`
    : 'kept until the job that holds its key is over';
}
