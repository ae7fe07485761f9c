import { asEntry, entryColumns } from '../../database/columns.js';
import type { NewEntry } from './enqueue.sql.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import { rows, type Queryable, type Tables } from '../../database/tables.js';

/** A key to enqueue a job under, and what to do where it is taken. */
export interface KeyedAsk {
  kind: 'unique' | 'debounce' | 'throttle';
  key: string;
  /** The key is held until the job's first run begins; else until the job has left the queue. */
  untilStarted: boolean;
  /** And for so long after that; for `throttle`, after the job was added. */
  withinMs: number | null;
  onConflict: 'ignore' | 'replace' | 'reschedule' | 'keepLatest' | 'debounce';
  /** For `debounce`: so long after the first call the job is due, whatever calls come. */
  mostWaitMs: number | null;
}

export type KeyedOutcome = 'added' | 'changed' | 'taken' | 'refused';

/** How an attempt to add a job goes about what is in its way. */
export interface Patience {
  /** For locks, in an engine's own transaction: lock_not_available (55P03) after that. */
  lockWaitMs?: number;
  /** An attempt of so long ago at the most, whose answer was lost, may have added it. */
  doubtMs?: number;
}

/**
 * Adds a job under a key, or does what is asked for where the key is taken, with one statement
 * (`migrations/008-identity/enqueue`). @returns the new entry, or the one that holds the key as it is now, by outcome; none
 * where it was refused: the template inactive or gone, or the identifier taken
 */
export async function enqueueKeyed(
  db: Queryable,
  { enqueueKeyed }: Tables,
  draft: NewEntry,
  ask: KeyedAsk,
  { lockWaitMs, doubtMs }: Patience = {},
): Promise<{ outcome: KeyedOutcome; entry: JobQueueEntry | null }> {
  const [row] = await rows<{ outcome: KeyedOutcome }>(
    db,
    `SELECT u.outcome, ${entryColumns('(u.entry)')} FROM ${enqueueKeyed} (
       $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) u`,
    [
      ask.kind,
      ask.key,
      draft.jobTemplateId,
      draft.jobRunIdentifier,
      draft.named,
      draft.priority,
      draft.timeoutMs,
      draft.maxRetries,
      draft.jobContext,
      draft.backoff,
      draft.runAt,
      draft.delayMs,
      draft.retryOfJobRunId,
      ask.untilStarted,
      ask.withinMs,
      ask.onConflict,
      ask.mostWaitMs,
      lockWaitMs ?? null,
      doubtMs ?? null,
    ],
  );
  const { outcome, ...entry } = row!;
  return { outcome, entry: outcome === 'refused' ? null : asEntry(entry) };
}

/** Lets jobs go that were kept until those that hold their keys had left the queue. @returns how many */
export async function advanceKeys(
  db: Queryable,
  { advanceKeys }: Tables,
  limit: number,
): Promise<number> {
  const [row] = await rows<{ advanced: number }>(db, `SELECT advanced FROM ${advanceKeys} ($1)`, [
    limit,
  ]);
  return row?.advanced ?? 0;
}

/** Forgets keys that nobody holds any more. @returns how many were looked at */
export async function pruneKeys(
  db: Queryable,
  { pruneKeys }: Tables,
  limit: number,
): Promise<number> {
  const [row] = await rows<{ looked: number }>(db, `SELECT looked FROM ${pruneKeys} ($1)`, [limit]);
  return row?.looked ?? 0;
}
