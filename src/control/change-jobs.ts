import { JobNotAvailableError } from '../job/errors.js';
import { encodeContext } from '../context/context-contract.js';
import { changeEntry, type DueTime, type EntryChanges } from './change-entry.sql.js';
import type { CurrentTransaction } from '../database/transactions/current-transaction.js';
import type { JobQueueEntry } from '../database/entities/index.js';
import { WAITS_FOR_KEY } from '../database/migrations/baseline/job-keys.js';
import { findEntry } from '../lifecycle/run/run.sql.js';
import type { Queryable } from '../database/tables.js';
import { findTemplate } from '../lifecycle/templates/template.sql.js';
import { wrappingOf } from '../lifecycle/enqueue/prepare-entry.js';
import type { WakeUps } from '../notifications/wake-ups.js';
import type { Store } from '../database/store.js';
import type { StoredContexts } from '../context/stored-contexts.js';
import type { Templates } from '../lifecycle/templates/templates.js';
import type { BackoffData } from '../job/backoff.js';
import type { Duration } from '../job/duration.js';
import { maxRetries, priority, storedBackoff, timeout } from '../options/job-options.js';
import {
  date,
  duration,
  or,
  partial,
  refuseTogether,
  type Check,
  type SchemaOf,
} from '../options/reader.js';

/** Changes of a waiting job. Omitted fields stay. */
export interface JobChanges {
  /** Validated as by `enqueueJob`. */
  context?: object;
  /** Jobs with a lower number run first, from -1,000,000 to 1,000,000. */
  priority?: number;
  /** The earliest time of the next run. */
  runAt?: Date;
  /** The earliest time of the next run, from now. Cannot be combined with `runAt`. */
  delay?: Duration;
  /** How long a run may take, from 1 ms. */
  timeout?: Duration;
  /** Retries after the first run, including the used ones. */
  maxRetries?: number;
  /** `null`: the template's, else the module's. */
  backoff?: BackoffData | null;
}

const WHERE = 'changes of a job';
const runAt: Check<DueTime> = (...args) => ({ runAt: date(...args) });
const delay: Check<DueTime> = (value, field, where) => ({
  delayMs: duration()(value, field, where),
});
const readChanges = partial({
  // Validated by its contract.
  context: (value) => value,
  priority,
  runAt,
  delay,
  timeout,
  maxRetries,
  backoff: or(storedBackoff, null),
} satisfies SchemaOf<JobChanges>);

/** @throws BildadConfigError */
export function entryChanges(changes: Omit<JobChanges, 'context'>): EntryChanges {
  refuseTogether(changes, WHERE, 'runAt', 'delay');
  const { priority, runAt, delay, timeout, maxRetries, backoff } = readChanges(changes, '', WHERE);
  const due = runAt ?? delay;
  return {
    ...(priority !== undefined && { priority }),
    ...(timeout !== undefined && { timeoutMs: timeout }),
    ...(maxRetries !== undefined && { maxRetries }),
    ...(backoff !== undefined && {
      backoff: backoff === null ? null : JSON.stringify(backoff),
    }),
    ...(due && { due }),
  };
}

/** @throws BildadConfigError about `field` */
export const dueTime: Check<DueTime> = (when, field, where) =>
  when instanceof Date ? runAt(when, field, where) : delay(when, field, where);

/** Changes AVAILABLE entries. The statement itself checks the status. */
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
  async changeEntry(
    entryId: string,
    changes: EntryChanges,
    context?: unknown,
  ): Promise<JobQueueEntry> {
    const { tables } = this.store;
    const { manager } = this.current;
    const db = manager ?? this.store.db;
    const encoded =
      context === undefined
        ? changes
        : {
            ...changes,
            jobContext: await this.encodeContext(
              await this.readAvailable(entryId, db),
              context,
              db,
            ),
          };
    const changed =
      (await changeEntry(db, tables, entryId, encoded)) ?? (await this.refuse(entryId, db));
    if (!changed.scheduled)
      if (manager) this.wakeUps.wakeAfterCommit(manager);
      else this.wakeUps.wake();
    return changed;
  }

  private async encodeContext(
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

  private async readAvailable(entryId: string, db: Queryable): Promise<JobQueueEntry> {
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
        ? `it is or was ${describeWait(entry)}, and nothing was changed`
        : 'it is not in the queue',
    );
  }
}

function describeWait({ status, runAt, startBefore }: JobQueueEntry): string {
  if (status !== 'AVAILABLE') return status;
  return startBefore && runAt.toISOString() !== WAITS_FOR_KEY
    ? `to be started before ${startBefore.toISOString()}`
    : 'waiting for the job that holds its key';
}
