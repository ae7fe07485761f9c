import { BLOCKED } from '../../concurrency/lock-retry.js';
import type { BackoffData } from '../../job/backoff.js';
import type { JsonValue } from '../../job/json.js';
import { JobQueueStatus } from '../../job/status.js';
import { asEntry } from '../../database/columns.js';
import type { JobQueueEntry } from '../../database/entities/index.js';
import {
  jsonList,
  jsonOrNull,
  plainArray,
  rows,
  type Queryable,
  type Tables,
} from '../../database/tables.js';

/** Names an entry of the queue. */
export type EntryReference = Pick<JobQueueEntry, 'id' | 'jobRunIdentifier'>;

/** The columns of an entry to insert. */
export interface NewEntry {
  jobTemplateId: string;
  jobRunIdentifier: string;
  /** The caller chose the identifier: it may be that of a job in the history. */
  named: boolean;
  priority: number;
  timeoutMs: number;
  maxRetries: number;
  /** JSON text, or null. */
  backoff: string | null;
  /** JSON text, and what it says. */
  jobContext: string;
  context: JsonValue;
  /** ISO text; null: at once, or after `delayMs`. */
  runAt: string | null;
  delayMs: number;
  retryOfJobRunId: string | null;
}

/**
 * Inserts AVAILABLE entries with one statement (`migrations/002-hot-path/enqueue`), in the order given. An
 * entry whose template is inactive or gone, or whose identifier is taken, is left out (null at its place)
 * without failing its neighbours or the caller's transaction.
 * @param lockWaitMs how long to wait for a name that another transaction has taken and not committed; 55P03 after that, in
 *   a transaction for the rest of it too. Default: as long as the session waits for locks
 */
export async function insertEntries(
  db: Queryable,
  { enqueue }: Tables,
  batch: NewEntry[],
  lockWaitMs?: number,
): Promise<(JobQueueEntry | null)[]> {
  const [row] = await rows<{
    ids: string | null;
    identifiers: string[] | null;
    nowMs: number;
  }>(
    db,
    `SELECT ids, identifiers, now_ms AS "nowMs" FROM ${enqueue} (${lockWaitMs === undefined ? '$1' : PATIENT}, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`,
    [
      batch.map(({ jobRunIdentifier }) => jobRunIdentifier),
      shared(batch.map(({ jobTemplateId }) => jobTemplateId)),
      shared(batch.map(({ named }) => named)),
      shared(batch.map(({ priority }) => priority)),
      shared(batch.map(({ timeoutMs }) => timeoutMs)),
      shared(batch.map(({ maxRetries }) => maxRetries)),
      jsonList(batch.map(({ jobContext }) => jobContext)),
      jsonOrNull(batch.map(({ backoff }) => backoff)),
      batch.some(({ runAt }) => runAt !== null) ? batch.map(({ runAt }) => runAt) : null,
      shared(batch.map(({ delayMs }) => delayMs)),
      batch.some(({ retryOfJobRunId }) => retryOfJobRunId !== null)
        ? plainArray(batch.map(({ retryOfJobRunId }) => retryOfJobRunId))
        : null,
      ...(lockWaitMs === undefined ? [] : [String(lockWaitMs)]),
    ],
  );
  const ids = row?.ids?.split(',') ?? [];
  const nowMs = row?.nowMs ?? 0;
  if (!row?.identifiers && ids.length === batch.length)
    return batch.map((draft, index) => entryOf(draft, ids[index]!, nowMs));
  const byIdentifier = new Map(
    row?.identifiers?.map((identifier, index) => [identifier, ids[index]!]),
  );
  return batch.map((draft) => {
    const id = byIdentifier.get(draft.jobRunIdentifier);
    // Two of one identifier in a batch: the first has it.
    byIdentifier.delete(draft.jobRunIdentifier);
    return id === undefined ? null : entryOf(draft, id, nowMs);
  });
}

/**
 * Those of these entries that are queued or were, put in within these milliseconds and not before. They are known by
 * identifier, template and context: to be asked where the answer to the insert was lost.
 */
export async function findInserted(
  db: Queryable,
  { entries, runs }: Tables,
  batch: NewEntry[],
  withinMs: number,
): Promise<(JobQueueEntry | null)[]> {
  const found = await rows<{ ord: number; id: string; nowMs: number }>(
    db,
    `WITH asked AS MATERIALIZED (
       SELECT i.ord::int, i.identifier, i.template, $3::jsonb -> (i.ord - 1)::int AS context,
              clock_timestamp() - $4::float8 * interval '1 ms' AS since
       FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS i (identifier, template, ord)
     )
     SELECT ord, e.id::text, date_part('epoch', e.inserted_at) * 1000 AS "nowMs"
     FROM asked JOIN ${entries} e ON e.job_run_identifier = identifier
     WHERE e.inserted_at >= since AND e.job_template_id = template AND e.job_context = context
     UNION ALL
     SELECT ord, min(r.job_queue_entry_id)::text, date_part('epoch', min(r.available_at)) * 1000
     FROM asked JOIN ${runs} r ON r.job_run_identifier = identifier
     WHERE r.job_template_id = template AND r.job_context = context
     GROUP BY ord, since HAVING min(r.inserted_at) >= since`,
    [
      batch.map(({ jobRunIdentifier }) => jobRunIdentifier),
      plainArray(batch.map(({ jobTemplateId }) => jobTemplateId)),
      jsonList(batch.map(({ jobContext }) => jobContext)),
      withinMs,
    ],
  );
  const byOrder = new Map(found.map((row) => [row.ord, row]));
  return batch.map((draft, index) => {
    const row = byOrder.get(index + 1);
    return row ? entryOf(draft, row.id, row.nowMs) : null;
  });
}

/** A function's arguments are there before it begins: no statement more, and it is over with this one. */
const PATIENT = `CASE WHEN set_config('lock_timeout', $12, true) IS NOT NULL THEN $1::text[] END`;

/** One element stands for all: most batches are of one kind. */
const shared = (values: readonly (string | number | boolean)[]) =>
  plainArray(values.every((value) => value === values[0]) ? values.slice(0, 1) : values);

/** The entry as it was written: everything but its id and its time is known here. */
function entryOf(draft: NewEntry, id: string, nowMs: number): JobQueueEntry {
  const { backoff, context, runAt, delayMs } = draft;
  const insertedAt = new Date(nowMs);
  const dueAtMs = runAt === null ? nowMs + delayMs : Date.parse(runAt);
  return asEntry({
    id,
    jobTemplateId: draft.jobTemplateId,
    jobRunIdentifier: draft.jobRunIdentifier,
    status: JobQueueStatus.AVAILABLE,
    priority: draft.priority,
    timeoutMs: draft.timeoutMs,
    maxRetries: draft.maxRetries,
    backoff: backoff === null ? null : (JSON.parse(backoff) as BackoffData),
    jobContext: context,
    runAt: new Date(dueAtMs),
    scheduled: dueAtMs > nowMs,
    retry: 0,
    uncountedRuns: 0,
    crashes: 0,
    currentJobRunId: null,
    retryOfJobRunId: draft.retryOfJobRunId,
    startBefore: null,
    quarantinedAt: null,
    quarantineReason: null,
    insertedAt,
    updatedAt: insertedAt,
  });
}

/**
 * Makes entries due whose time has come. Reads no further in the index of scheduled entries than to now, which the time as a
 * subquery lets it: with 100,000 ahead and none due 0.01 ms and 2 pages, with the volatile function itself 26 ms and 4,442
 * (EXPLAIN (ANALYZE, BUFFERS)). @returns how many
 */
export async function promoteScheduled(
  db: Queryable,
  { entries }: Tables,
  limit: number,
): Promise<number> {
  const [row] = await rows<{ promoted: number }>(
    db,
    `WITH due AS MATERIALIZED (
       SELECT id FROM ${entries}
       WHERE status = 'AVAILABLE' AND scheduled AND crashes = 0 AND run_at <= (SELECT clock_timestamp())
       ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED
     ), ready AS (
       UPDATE ${entries} e SET scheduled = false, updated_at = clock_timestamp()
       FROM due WHERE e.id = due.id RETURNING e.id
     ) SELECT count(*)::int AS promoted FROM ready`,
    [limit],
  );
  return row?.promoted ?? 0;
}

/**
 * Deletes an entry whose run row, if it has one, is written. Waits for no lock.
 * @returns whether it was deleted; BLOCKED: another transaction has it locked
 */
export async function deleteEntry(
  db: Queryable,
  { entries }: Tables,
  entryId: string,
  { onlyWaiting }: { onlyWaiting: boolean },
): Promise<boolean | typeof BLOCKED> {
  const [row] = await rows<{ deleted: boolean; deletable: boolean }>(
    db,
    `WITH gone AS (
       DELETE FROM ${entries} WHERE id = (
         SELECT id FROM ${entries} WHERE id = $1 AND (NOT $2 OR status <> 'RUNNING') AND claimed_by IS NULL
         FOR UPDATE SKIP LOCKED)
       RETURNING id
     ) SELECT EXISTS (SELECT FROM gone) AS deleted,
         EXISTS (SELECT FROM ${entries} WHERE id = $1 AND (NOT $2 OR status <> 'RUNNING') AND claimed_by IS NULL) AS deletable`,
    [entryId, onlyWaiting],
  );
  if (row?.deleted) return true;
  return row?.deletable ? BLOCKED : false;
}

/** Deletes those of these entries that do not run. @returns their ids */
export async function deleteWaiting(
  db: Queryable,
  { entries }: Tables,
  entryIds: string[],
): Promise<string[]> {
  const gone = await rows<{ id: string }>(
    db,
    `WITH gone AS (
       DELETE FROM ${entries} WHERE id = ANY ($1::bigint[]) AND status <> 'RUNNING' AND claimed_by IS NULL
       RETURNING id
     ) SELECT id::text FROM gone`,
    [entryIds],
  );
  return gone.map(({ id }) => id);
}
