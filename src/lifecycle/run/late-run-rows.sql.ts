import { LONGEST_MS } from '../../database/migrations/baseline/claim-jobs.js';
import { spared } from '../../membership/node.sql.js';
import {
  jsonOrNull,
  plainArray,
  rows,
  type Queryable,
  type Tables,
} from '../../database/tables.js';

/** A run that succeeded, whose row is written with its end. */
export interface DeferredEnd {
  jobRunId: string;
  jobQueueEntryId: string;
  /** JSON text, or null. */
  output: string | null;
}

/**
 * Ends them in one statement, which locks their entries in the order of their ids, as the heartbeat does that writes their
 * rows: in another each may wait for the other. @returns for each whether it landed; where not, its row may be
 * there by now
 */
export async function endDeferred(
  db: Queryable,
  tables: Tables,
  ends: DeferredEnd[],
): Promise<boolean[]> {
  const sorted = ends.toSorted(byEntry);
  const [row] = await rows<{ ended: string | null }>(
    db,
    `WITH ended AS (SELECT * FROM ${tables.endDeferred} ($1, $2, $3)) SELECT ended_ids AS ended FROM ended`,
    [
      plainArray(sorted.map(({ jobQueueEntryId }) => jobQueueEntryId)),
      plainArray(sorted.map(({ jobRunId }) => jobRunId)),
      jsonOrNull(sorted.map(({ output }) => output)),
    ],
  );
  if (row && row.ended === null) return ends.map(() => true);
  const landed = new Set(row?.ended?.split(','));
  return ends.map(({ jobRunId }) => landed.has(jobRunId));
}

/** Ids are decimal texts of up to 19 digits: more than a number holds. */
function byEntry({ jobQueueEntryId: a }: DeferredEnd, { jobQueueEntryId: b }: DeferredEnd): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

/**
 * Writes the rows that were deferred of these entries' runs: RUNNING, with the lease of their claim. A number
 * that is taken already is stepped over. @returns how many
 */
export function writeDeferredRuns(
  db: Queryable,
  tables: Tables,
  entryIds: string[],
): Promise<number> {
  return write(db, tables, 'e.id = ANY ($1::bigint[])', [plainArray(entryIds)]);
}

const lost = (tables: Tables) => `SELECT id FROM ${tables.entries}
  WHERE status = 'RUNNING' AND claimed_by IS NOT NULL AND claim_expires_at <= clock_timestamp()
    AND NOT ${spared(tables, `${tables.entries}.claimed_by`)} LIMIT $1`;

/** The same for those whose node has not written them within its lease: it is gone, if it is not stuck. Reads all entries. */
export function writeLostRuns(db: Queryable, tables: Tables, limit: number): Promise<number> {
  return write(db, tables, `e.id = ANY (ARRAY(${lost(tables)}))`, [limit]);
}

/** The entries of those. */
export async function lostEntries(db: Queryable, tables: Tables, limit: number): Promise<string[]> {
  const found = await rows<{ id: string }>(db, `SELECT id::text FROM (${lost(tables)}) lost`, [
    limit,
  ]);
  return found.map(({ id }) => id);
}

/** The same for a run of which only the number is known. Reads all entries. */
export function writeDeferredRun(db: Queryable, tables: Tables, runId: string): Promise<number> {
  return write(
    db,
    tables,
    `e.id = ANY (ARRAY(SELECT id FROM ${tables.entries} WHERE status = 'RUNNING' AND current_job_run_id = $1))`,
    [runId],
  );
}

/**
 * Gives back entries that this node claimed without hearing of it: each of its heartbeats writes the rows of
 * those it holds, so what has none for most of a lease is not held. Reads all entries. @returns how many
 */
export async function releaseUnheard(
  db: Queryable,
  { entries, runs }: Tables,
  nodeId: string,
  leaseMs: number,
  heldEntryIds: string[],
): Promise<number> {
  const [row] = await rows<{ released: number }>(
    db,
    `WITH back AS (
       UPDATE ${entries} e SET status = 'AVAILABLE', retry = e.retry - 1, claimed_by = NULL, claimed_at = NULL,
         claim_expires_at = NULL, scheduled = e.scheduled OR e.crashes > 0, updated_at = clock_timestamp(),
         current_job_run_id = (SELECT r.id FROM ${runs} r
                               WHERE r.job_run_identifier = e.job_run_identifier AND r.retry = e.retry - 2)
       WHERE e.status = 'RUNNING' AND e.claimed_by = $1
         AND e.claim_expires_at < clock_timestamp() + $2::float8 * interval '0.4 ms' AND e.id <> ALL ($3::bigint[])
       RETURNING e.id
     ) SELECT count(*)::int AS released FROM back`,
    [nodeId, leaseMs, plainArray(heldEntryIds)],
  );
  return row?.released ?? 0;
}

async function write(
  db: Queryable,
  { entries, runs }: Tables,
  which: string,
  parameters: unknown[],
): Promise<number> {
  const [row] = await rows<{ written: number }>(
    db,
    `WITH found AS MATERIALIZED (
       SELECT e.*, CASE WHEN EXISTS (SELECT FROM ${runs} r WHERE r.job_run_identifier = e.job_run_identifier AND r.retry = e.retry - 1)
         THEN (SELECT max(r.retry) + 1 FROM ${runs} r WHERE r.job_run_identifier = e.job_run_identifier)
         ELSE e.retry - 1 END AS number
       FROM ${entries} e WHERE ${which} AND e.status = 'RUNNING' AND e.claimed_by IS NOT NULL
       ORDER BY e.id FOR UPDATE
     ), born AS (
       INSERT INTO ${runs} (id, job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
                            job_context, available_at, started_at, timeout_at, expires_at, inserted_at)
       SELECT current_job_run_id, job_template_id, id, job_run_identifier, number, job_run_identifier || '#' || number,
              claimed_by, job_context, run_at, claimed_at,
              claimed_at + least(timeout_ms, ${LONGEST_MS}) * interval '1 ms', claim_expires_at, claimed_at
       FROM found
     ), kept AS (
       UPDATE ${entries} e SET claimed_by = NULL, claimed_at = NULL, claim_expires_at = NULL, retry = found.number + 1
       FROM found WHERE e.id = found.id RETURNING e.id
     ) SELECT count(*)::int AS written FROM kept`,
    parameters,
  );
  return row?.written ?? 0;
}
