import type { JobQueueEntry } from '../../database/entities/index.js';
import { asEntry, entryColumns } from '../../database/columns.js';
import { rows, type Queryable, type Tables } from '../../database/tables.js';
import { PROBLEM, WELL_FORMED } from '../../database/migrations/baseline/well-formed.js';

export interface QuarantinedEntry {
  jobQueueEntryId: string;
  jobRunIdentifier: string;
  /** Text with at most an SQLSTATE, and no value of the row. */
  reason: string;
}

/**
 * Also removes the entry from the ready index, so no claim steps over it. A current run of it ends in the history and
 * does not reopen the entry.
 */
const QUARANTINED = `status = 'QUARANTINED', quarantined_at = clock_timestamp(), scheduled = true,
  claimed_by = NULL, claimed_at = NULL, claim_expires_at = NULL, updated_at = clock_timestamp(),
  current_job_run_id = CASE WHEN e.status = 'AVAILABLE' THEN e.current_job_run_id END`;
const RETURNED_COLUMNS = `e.id::text AS "jobQueueEntryId", e.job_run_identifier AS "jobRunIdentifier", e.quarantine_reason AS reason`;

/**
 * @param reason for entries that break no known rule; null: such entries are not quarantined
 * @returns the entries that were not quarantined before
 */
export function quarantineEntries(
  db: Queryable,
  { entries }: Tables,
  entryIds: string[],
  reason: string | null,
): Promise<QuarantinedEntry[]> {
  return rows(
    db,
    `WITH quarantined AS (
       UPDATE ${entries} e SET ${QUARANTINED}, quarantine_reason = coalesce(${PROBLEM}, $2)
       WHERE e.id = ANY ($1::bigint[]) AND e.status IS DISTINCT FROM 'QUARANTINED'
         AND ($2::text IS NOT NULL OR ${PROBLEM} IS NOT NULL)
       RETURNING *
     ) SELECT ${RETURNED_COLUMNS} FROM quarantined e`,
    [entryIds, reason],
  );
}

/**
 * Quarantines entries that cannot run, or whose run would never end: a rule is broken, the status is unknown, or the
 * template is gone. Reads all entries: 0.42 s with a million (docs/plans.md).
 */
export function quarantineMalformed(
  db: Queryable,
  { entries, templates }: Tables,
  limit: number,
): Promise<QuarantinedEntry[]> {
  return rows(
    db,
    `WITH found AS MATERIALIZED (
       SELECT e.id, CASE WHEN e.status IN ('AVAILABLE', 'RUNNING') THEN coalesce(${PROBLEM}, 'its template does not exist')
                    ELSE 'its status is unknown' END AS reason
       FROM ${entries} e
       WHERE e.status IS DISTINCT FROM 'QUARANTINED' AND (
         CASE e.status
           WHEN 'AVAILABLE' THEN NOT (${WELL_FORMED}) OR NOT EXISTS (SELECT FROM ${templates} t WHERE t.id = e.job_template_id)
           WHEN 'RUNNING' THEN claimed_by IS NOT NULL AND NOT (${WELL_FORMED}) OR num_nulls(claimed_by, claimed_at, claim_expires_at) NOT IN (0, 3)
           ELSE true END)
       ORDER BY e.id LIMIT $1 FOR UPDATE OF e SKIP LOCKED
     ), quarantined AS (
       UPDATE ${entries} e SET ${QUARANTINED}, quarantine_reason = found.reason
       FROM found WHERE e.id = found.id RETURNING e.*
     ) SELECT ${RETURNED_COLUMNS} FROM quarantined e`,
    [limit],
  );
}

/**
 * Releases an entry to the queue. @returns null when it is not quarantined, or its template is gone
 * @throws a check_violation when it is still malformed
 */
export async function releaseEntry(
  db: Queryable,
  { entries, templates }: Tables,
  entryId: string,
): Promise<JobQueueEntry | null> {
  const [row] = await rows(
    db,
    `WITH released AS (
       UPDATE ${entries} e SET status = 'AVAILABLE', scheduled = e.run_at > clock_timestamp() OR e.crashes > 0, quarantined_at = NULL,
         quarantine_reason = NULL, updated_at = clock_timestamp()
       WHERE e.id = $1 AND e.status = 'QUARANTINED'
         AND EXISTS (SELECT FROM ${templates} t WHERE t.id = e.job_template_id)
       RETURNING e.*
     ) SELECT ${entryColumns('released')} FROM released`,
    [entryId],
  );
  return row ? asEntry(row) : null;
}
