import { ENVELOPE } from '../context/envelope.js';
import { asEntry, entryColumns } from '../database/columns.js';
import type { JobQueueEntry } from '../database/entities/index.js';
import { WAITS_FOR_KEY } from '../database/migrations/baseline/job-keys.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';

/** When an entry is to be due: ISO text, or milliseconds from now. */
export type DueTime = { runAt: string } | { delayMs: number };

/** Omitted fields stay unchanged. */
export interface EntryChanges {
  priority?: number;
  timeoutMs?: number;
  maxRetries?: number;
  /** JSON text, or null for the template's. */
  backoff?: string | null;
  /** JSON text. */
  jobContext?: string;
  due?: DueTime;
}

const COLUMNS: readonly [
  property: Exclude<keyof EntryChanges, 'due'>,
  column: string,
  type: string,
][] = [
  ['priority', 'priority', 'integer'],
  ['timeoutMs', 'timeout_ms', 'bigint'],
  ['maxRetries', 'max_retries', 'integer'],
  ['backoff', 'backoff', 'jsonb'],
  ['jobContext', 'job_context', 'jsonb'],
];

/**
 * Changes an AVAILABLE entry.
 * @returns null if it is not AVAILABLE, does not exist or may not get the due time; then nothing was changed
 */
export async function changeEntry(
  db: Queryable,
  { entries }: Tables,
  entryId: string,
  { due, ...changes }: EntryChanges,
): Promise<JobQueueEntry | null> {
  const values: unknown[] = [entryId];
  const sets = COLUMNS.filter(([property]) => changes[property] !== undefined).map(
    ([property, column, type]) => {
      values.push(changes[property]);
      const value = `$${values.length}::${type}`;
      return `${column} = ${property === 'jobContext' ? keepCarried(value) : value}`;
    },
  );
  let condition = '';
  if (due) {
    values.push(...dueValues(due));
    const moment = momentOf(`$${values.length - 1}`, `$${values.length}`);
    sets.push(setDueTime(moment));
    condition = ` AND ${mayBecomeDue(moment)}`;
  }
  const [row] = await rows(
    db,
    `WITH changed AS (
       UPDATE ${entries} e SET ${[...sets, 'updated_at = clock.now'].join(', ')}
       FROM (SELECT clock_timestamp() AS now) clock
       WHERE e.id = $1 AND e.status = 'AVAILABLE'${condition} RETURNING e.*
     ) SELECT ${entryColumns('changed')} FROM changed`,
    values,
  );
  return row ? asEntry(row) : null;
}

/** Changes the due time of these entries where they are AVAILABLE and may get it. @returns how many */
export async function rescheduleEntries(
  db: Queryable,
  { entries }: Tables,
  entryIds: string[],
  due: DueTime,
): Promise<number> {
  const moment = momentOf('$2', '$3');
  const [row] = await rows<{ changed: number }>(
    db,
    `WITH changed AS (
       UPDATE ${entries} e SET ${setDueTime(moment)}, updated_at = clock.now
       FROM (SELECT clock_timestamp() AS now) clock
       WHERE e.id = ANY ($1::bigint[]) AND e.status = 'AVAILABLE' AND ${mayBecomeDue(moment)} RETURNING e.id
     ) SELECT count(*)::int AS changed FROM changed`,
    [entryIds, ...dueValues(due)],
  );
  return row?.changed ?? 0;
}

/**
 * A new context with the carried values of the old one. Done in the statement, so that the row need not be read and its
 * sealed values need not be decrypted.
 */
function keepCarried(context: string): string {
  const envelope = `e.job_context -> '${ENVELOPE}'`;
  const carried = `(SELECT jsonb_object_agg(key, value) FROM jsonb_each(${envelope}) WHERE key IN ('carried', 'sealedCarried'))`;
  return `CASE
    WHEN NOT coalesce(${envelope} ?| ARRAY['carried', 'sealedCarried'], false) THEN ${context}
    WHEN coalesce(${context} ? '${ENVELOPE}', false) THEN jsonb_set(${context}, '{${ENVELOPE}}', (${context} -> '${ENVELOPE}') || ${carried})
    ELSE jsonb_build_object('${ENVELOPE}', ${carried}, 'value', ${context}) END`;
}

const dueValues = (due: DueTime) => ('runAt' in due ? [due.runAt, null] : [null, due.delayMs]);

const momentOf = (runAt: string, delayMs: string) =>
  `coalesce(${runAt}::timestamptz, clock.now + ${delayMs}::float8 * interval '1 ms')`;

/**
 * An entry that waits for the holder of its key becomes due when the holder has ended. An entry with a `startBefore` that
 * was never started must not become due after that time.
 */
const mayBecomeDue = (moment: string) =>
  `e.run_at <> '${WAITS_FOR_KEY}' AND (e.start_before IS NULL OR e.current_job_run_id IS NOT NULL OR ${moment} < e.start_before)`;

/** A suspect stays out of the ready index. */
const setDueTime = (moment: string) =>
  `run_at = ${moment}, scheduled = ${moment} > clock.now OR e.crashes > 0`;
