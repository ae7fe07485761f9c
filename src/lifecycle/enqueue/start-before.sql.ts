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
