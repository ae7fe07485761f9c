import type { EntryFate } from '../../job/events.js';
import { MARK } from '../../database/transactions/job-transaction.js';
import { jsonOrNull, rows, type Queryable, type Tables } from '../../database/tables.js';

/** The end of a run that succeeded, as a handler's transaction writes it. */
export interface EndWithin {
  jobRunId: string;
  jobQueueEntryId: string;
  /** Under which the run was claimed. */
  nodeId: string;
  /** JSON text, or null. */
  output: string | null;
}

/**
 * Ends a run that succeeded within a transaction of its handler's: it lands with the transaction. Only if the run is RUNNING and
 * that node's, and stays so: its row is locked from here on.
 * @param marked lands only in the very transaction that the handler was given
 * @param idleMs from here on the server waits no longer for what comes next
 * @returns what becomes of the entry, or null when the end did not land
 */
export async function endWithin(
  transaction: Queryable,
  { runs, end }: Tables,
  { jobRunId, jobQueueEntryId, nodeId, output }: EndWithin,
  { marked, idleMs }: { marked: boolean; idleMs?: number },
): Promise<EntryFate | null> {
  const [row] = await rows<{ ended: string | null }>(
    transaction,
    `WITH own AS MATERIALIZED (
       SELECT id FROM ${runs} WHERE id = $1 AND status = 'RUNNING' AND node_id = $3
         AND (NOT $5::boolean OR current_setting('${MARK}', true) = $1::bigint::text) FOR NO KEY UPDATE
     ), ended AS (
       SELECT e.ended_ids FROM own,
         LATERAL ${end} (ARRAY[own.id], ARRAY[$2::bigint], NULL, NULL, NULL, $4::jsonb, NULL, NULL, NULL, NULL) e
     ) SELECT ended_ids AS ended,
         CASE WHEN $6::text IS NOT NULL THEN set_config('idle_in_transaction_session_timeout', $6, true) END
       FROM ended`,
    [
      jobRunId,
      jobQueueEntryId,
      nodeId,
      jsonOrNull([output]),
      marked,
      idleMs === undefined ? null : String(idleMs),
    ],
  );
  if (!row || row.ended === '') return null;
  return row.ended === null ? 'removed' : 'kept';
}

/**
 * Renews a run's lease once for as long as it may take. Its row is left alone from then on, because a transaction that is stricter than
 * READ COMMITTED cannot end a run whose row was changed since it began.
 * @returns false when the run is not that node's any more
 */
export async function holdLease(
  db: Queryable,
  { runs }: Tables,
  { jobRunId, nodeId, forMs }: { jobRunId: string; nodeId: string; forMs: number },
): Promise<boolean> {
  const held = await rows(
    db,
    `WITH held AS (
       UPDATE ${runs} SET expires_at = greatest(expires_at, clock_timestamp() + $3::float8 * interval '1 ms')
       WHERE id = $1 AND status = 'RUNNING' AND node_id = $2 RETURNING id
     ) SELECT id FROM held`,
    [jobRunId, nodeId, forMs],
  );
  return held.length > 0;
}
