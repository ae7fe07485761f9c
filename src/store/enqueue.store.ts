import { asEntry, entryColumns } from './columns.js';
import type { JobQueueEntry } from './entities/index.js';
import { jsonList, rows, type Queryable, type Tables } from './tables.js';

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
  /** JSON text. */
  jobContext: string;
  /** ISO text; null: at once, or after `delayMs`. */
  runAt: string | null;
  delayMs: number;
  retryOfJobRunId: string | null;
}

/**
 * Inserts AVAILABLE entries with one statement, in the order given. An entry whose template is
 * inactive or gone, or whose identifier is taken, is left out (null at its place) without failing
 * its neighbours or the caller's transaction.
 *
 * The template rows are locked once per statement against deletion, instead of a foreign key's
 * trigger per row. A generated identifier cannot be in the history, so only chosen ones are looked up.
 */
export async function insertEntries(
  db: Queryable,
  { entries, templates, runs }: Tables,
  batch: NewEntry[],
): Promise<(JobQueueEntry | null)[]> {
  const inserted = await rows<JobQueueEntry>(
    db,
    `WITH input AS (
       SELECT t.*, clock_timestamp() AS moment, $8::jsonb -> (ord - 1)::int AS context,
              nullif($7::jsonb -> (ord - 1)::int, 'null') AS backoff
       FROM unnest($1::bigint[], $2::text[], $3::boolean[], $4::int[], $5::bigint[], $6::int[],
                   $9::timestamptz[], $10::float8[], $11::bigint[])
         WITH ORDINALITY AS t (template_id, identifier, named, priority, timeout_ms, max_retries,
                               run_at, delay_ms, retry_of, ord)
     ), open AS MATERIALIZED (
       SELECT id FROM ${templates} WHERE id = ANY ($1::bigint[]) AND active FOR KEY SHARE
     ), added AS (
       INSERT INTO ${entries} (job_template_id, job_run_identifier, priority, timeout_ms, max_retries,
                               backoff, job_context, run_at, scheduled, retry_of_job_run_id)
       SELECT template_id, identifier, priority, timeout_ms, max_retries, backoff, context,
              coalesce(run_at, moment + delay_ms * interval '1 ms'),
              coalesce(run_at, moment + delay_ms * interval '1 ms') > moment, retry_of
       FROM input
       WHERE template_id IN (SELECT id FROM open)
         AND NOT (named AND EXISTS (SELECT FROM ${runs} r WHERE r.job_run_identifier = identifier))
       ORDER BY ord
       ON CONFLICT (job_run_identifier) DO NOTHING
       RETURNING *
     ) SELECT ${entryColumns('added')} FROM added`,
    [
      batch.map((entry) => entry.jobTemplateId),
      batch.map((entry) => entry.jobRunIdentifier),
      batch.map((entry) => entry.named),
      batch.map((entry) => entry.priority),
      batch.map((entry) => entry.timeoutMs),
      batch.map((entry) => entry.maxRetries),
      jsonList(batch.map((entry) => entry.backoff)),
      jsonList(batch.map((entry) => entry.jobContext)),
      batch.map((entry) => entry.runAt),
      batch.map((entry) => entry.delayMs),
      batch.map((entry) => entry.retryOfJobRunId),
    ],
  );
  const byIdentifier = new Map(
    inserted.map((row) => [row.jobRunIdentifier, asEntry(row)]),
  );
  return batch.map(({ jobRunIdentifier }) => {
    const entry = byIdentifier.get(jobRunIdentifier) ?? null;
    // Two of one identifier in a batch: the first has it.
    byIdentifier.delete(jobRunIdentifier);
    return entry;
  });
}

/** Makes entries due whose time has come. @returns how many */
export async function promoteScheduled(
  db: Queryable,
  { entries }: Tables,
  limit: number,
): Promise<number> {
  const [row] = await rows<{ promoted: number }>(
    db,
    `WITH due AS MATERIALIZED (
       SELECT id FROM ${entries}
       WHERE status = 'AVAILABLE' AND scheduled AND run_at <= clock_timestamp()
       ORDER BY run_at LIMIT $1 FOR UPDATE SKIP LOCKED
     ), ready AS (
       UPDATE ${entries} e SET scheduled = false, updated_at = clock_timestamp()
       FROM due WHERE e.id = due.id RETURNING e.id
     ) SELECT count(*)::int AS promoted FROM ready`,
    [limit],
  );
  return row?.promoted ?? 0;
}

/** @returns whether there was such an entry */
export async function deleteEntry(
  db: Queryable,
  { entries }: Tables,
  entryId: string,
  { onlyAvailable }: { onlyAvailable: boolean },
): Promise<boolean> {
  const deleted = await rows(
    db,
    `WITH gone AS (
       DELETE FROM ${entries} WHERE id = $1 AND (NOT $2 OR status = 'AVAILABLE') RETURNING id
     ) SELECT id FROM gone`,
    [entryId, onlyAvailable],
  );
  return deleted.length > 0;
}
