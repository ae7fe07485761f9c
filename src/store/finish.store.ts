import type { EntryFate } from '../model/events.js';
import { jsonList, rows, type Queryable, type Tables } from './tables.js';

export interface RunEnd {
  jobRunId: string;
  result: string;
  reason: string | null;
  /** JSON text, or null. */
  error: string | null;
  /** JSON text, or null. */
  output: string | null;
  entry: 'remove' | 'reopen';
  delayMs: number;
  /** Whether the run counts against maxRetries. */
  counts: boolean;
  /** Land only if the run's lease is over, for an end that was decided on an earlier look. */
  onlyIfExpired: boolean;
}

/**
 * Ends runs, and removes or reopens their entries, with one statement. An end lands only if its run is
 * still RUNNING, and touches the entry only if that run is the entry's current one: the loser of a
 * race, or a process of long ago, changes nothing (null at its place, else what became of the entry).
 * A job that somebody cancelled does not come back, however its run ends.
 *
 * Two batches that overlap may deadlock, which is rare (a node ends its own runs, the engine those of
 * lost nodes): the caller tries one by one then. Locking the runs in order first would write each twice.
 */
export async function endRuns(
  db: Queryable,
  { entries, runs }: Tables,
  asked: RunEnd[],
): Promise<(EntryFate | null)[]> {
  // Two ends of one run in a batch: the first given is it, but one that may not land gives way.
  const chosen = new Map<string, RunEnd>();
  for (const end of asked) {
    const other = chosen.get(end.jobRunId);
    if (!other || (other.onlyIfExpired && !end.onlyIfExpired))
      chosen.set(end.jobRunId, end);
  }
  const ends = [...chosen.values()];
  const landed = await rows<{ jobRunId: string; fate: EntryFate }>(
    db,
    `WITH input AS (
       SELECT t.*, nullif($4::jsonb -> (ord - 1)::int, 'null') AS error, nullif($5::jsonb -> (ord - 1)::int, 'null') AS output
       FROM unnest($1::bigint[], $2::text[], $3::text[], $6::boolean[], $7::float8[], $8::boolean[], $9::boolean[])
         WITH ORDINALITY AS t (run_id, result, reason, remove, delay_ms, counts, only_if_expired, ord)
     ), ended AS (
       UPDATE ${runs} r SET status = 'DONE', result = i.result, reason = i.reason, error = i.error,
         output = i.output, ended_at = clock_timestamp(), updated_at = clock_timestamp()
       FROM input i
       WHERE r.id = i.run_id AND r.status = 'RUNNING'
         AND (NOT i.only_if_expired OR r.expires_at <= clock_timestamp())
       RETURNING r.id, r.job_queue_entry_id, i.delay_ms, i.counts,
         i.remove OR coalesce(r.kill_requested = 'cancelled', false) AS remove
     ), removed AS (
       DELETE FROM ${entries} e USING ended
       WHERE ended.remove AND e.id = ended.job_queue_entry_id AND e.current_job_run_id = ended.id
       RETURNING e.id
     ), reopened AS (
       UPDATE ${entries} e SET status = 'AVAILABLE',
         run_at = clock_timestamp() + ended.delay_ms * interval '1 ms', scheduled = ended.delay_ms > 0,
         uncounted_runs = e.uncounted_runs + CASE WHEN ended.counts THEN 0 ELSE 1 END,
         updated_at = clock_timestamp()
       FROM ended
       WHERE NOT ended.remove AND e.id = ended.job_queue_entry_id AND e.current_job_run_id = ended.id
       RETURNING e.id
     )
     SELECT ended.id::text AS "jobRunId",
       CASE WHEN removed.id IS NOT NULL THEN 'removed' WHEN reopened.id IS NOT NULL THEN 'reopened' ELSE 'kept' END AS fate
     FROM ended LEFT JOIN removed ON removed.id = ended.job_queue_entry_id
       LEFT JOIN reopened ON reopened.id = ended.job_queue_entry_id`,
    [
      ends.map((end) => end.jobRunId),
      ends.map((end) => end.result),
      ends.map((end) => end.reason),
      jsonList(ends.map((end) => end.error)),
      jsonList(ends.map((end) => end.output)),
      ends.map((end) => end.entry === 'remove'),
      ends.map((end) => end.delayMs),
      ends.map((end) => end.counts),
      ends.map((end) => end.onlyIfExpired),
    ],
  );
  const fates = new Map(landed.map(({ jobRunId, fate }) => [jobRunId, fate]));
  return asked.map((end) =>
    chosen.get(end.jobRunId) === end ? (fates.get(end.jobRunId) ?? null) : null,
  );
}

/**
 * Reopens RUNNING entries whose current run is not RUNNING: somebody deleted it, or edited rows by
 * hand. @returns how many
 */
export async function reopenOrphans(
  db: Queryable,
  { entries, runs }: Tables,
  limit: number,
): Promise<number> {
  const [row] = await rows<{ reopened: number }>(
    db,
    `WITH orphans AS MATERIALIZED (
       SELECT e.id FROM ${entries} e
       WHERE e.status = 'RUNNING'
         AND NOT EXISTS (SELECT FROM ${runs} r WHERE r.id = e.current_job_run_id AND r.status = 'RUNNING')
       ORDER BY e.id LIMIT $1 FOR UPDATE SKIP LOCKED
     ), reopened AS (
       UPDATE ${entries} e SET status = 'AVAILABLE', scheduled = false, updated_at = clock_timestamp()
       FROM orphans WHERE e.id = orphans.id AND e.status = 'RUNNING' RETURNING e.id
     ) SELECT count(*)::int AS reopened FROM reopened`,
    [limit],
  );
  return row?.reopened ?? 0;
}
