import { rows, type Queryable, type Tables } from '../../database/tables.js';

/** ISO text, or milliseconds from when the entry was put in. */
export type StartBy = { at: string } | { withinMs: number };

/** To be called in the transaction that puts the entries in. @returns by when they are to start, in their order */
export async function markStartBefore(
  transaction: Queryable,
  { entries }: Tables,
  entryIds: string[],
  startBy: StartBy,
): Promise<Date[]> {
  const marked = await rows<{ startBefore: Date }>(
    transaction,
    `WITH marked AS (
       UPDATE ${entries} SET start_before = coalesce($2::timestamptz, inserted_at + $3::float8 * interval '1 ms')
       WHERE id = ANY ($1::bigint[]) RETURNING id, start_before
     ) SELECT start_before AS "startBefore" FROM marked ORDER BY id`,
    [entryIds, 'at' in startBy ? startBy.at : null, 'at' in startBy ? null : startBy.withinMs],
  );
  return marked.map(({ startBefore }) => startBefore);
}

/** Whether this is the first run of its entry, and comes too late. */
export async function comesTooLate(
  db: Queryable,
  { entries, runs }: Tables,
  { jobRunId, jobQueueEntryId }: { jobRunId: string; jobQueueEntryId: string },
): Promise<boolean> {
  const [row] = await rows<{ late: boolean | null }>(
    db,
    `SELECT e.start_before <= clock_timestamp() AND NOT EXISTS (
       SELECT FROM ${runs} r WHERE r.job_run_identifier = e.job_run_identifier AND r.job_queue_entry_id = e.id AND r.id <> $2
     ) AS late
     FROM ${entries} e WHERE e.id = $1 AND e.current_job_run_id = $2`,
    [jobQueueEntryId, jobRunId],
  );
  return row?.late === true;
}

export interface MissedRun {
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
  retry: number;
}

/**
 * Ends entries that were never started and are not to be any more: they go, and a run of each stays as history, FAILED
 * "Missed". Reads no further in the index of entries with a `startBefore` than to now, which the time as a subquery lets
 * it: a volatile function is no condition of an index (0.02 ms where 100,000 are ahead). @param nodeId that finds them
 */
export function endMissed(
  db: Queryable,
  { entries, runs, templates }: Tables,
  nodeId: string,
  limit: number,
): Promise<MissedRun[]> {
  return rows<MissedRun>(
    db,
    `WITH late AS MATERIALIZED (
       SELECT id FROM ${entries}
       WHERE start_before <= (SELECT clock_timestamp()) AND status = 'AVAILABLE' AND current_job_run_id IS NULL
       ORDER BY start_before LIMIT $2 FOR UPDATE SKIP LOCKED
     ), gone AS (
       DELETE FROM ${entries} e USING late WHERE e.id = late.id RETURNING e.*
     ), written AS (
       INSERT INTO ${runs} (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
                            status, result, reason, job_context, available_at, started_at, timeout_at, expires_at, ended_at)
       SELECT e.job_template_id, e.id, e.job_run_identifier, n.number, e.job_run_identifier || '#' || n.number, $1,
              'DONE', 'FAILED', 'Missed', e.job_context, least(e.run_at, clock.now), clock.now, clock.now, clock.now, clock.now
       FROM gone e, (SELECT clock_timestamp() AS now) clock,
         LATERAL (SELECT coalesce(max(r.retry) + 1, 0) AS number FROM ${runs} r
                  WHERE r.job_run_identifier = e.job_run_identifier) n
       RETURNING id, job_template_id, job_run_identifier, retry
     )
     SELECT w.id::text AS "jobRunId", w.job_run_identifier AS "jobRunIdentifier", w.retry,
       coalesce(t.code, '') AS "templateCode"
     FROM written w LEFT JOIN ${templates} t ON t.id = w.job_template_id ORDER BY w.id`,
    [nodeId, limit],
  );
}
