import { hasProtectedLease } from './run.sql.js';
import { plainArray, rows, type Queryable, type Tables } from '../../database/tables.js';

export interface WrittenRows {
  written: number;
  /** Entries that another transaction has locked: their run rows are still late. */
  blockedEntryIds: string[];
}

/**
 * Writes the late run rows of these entries: RUNNING, with the lease of their claim. A retry number that is taken already
 * is skipped. Waits for no lock.
 */
export function writeLateRows(
  db: Queryable,
  tables: Tables,
  entryIds: string[],
): Promise<WrittenRows> {
  return write(db, tables, '$1::bigint[]', [plainArray(entryIds)]);
}

const lostEntries = (tables: Tables) => `SELECT id FROM ${tables.entries}
  WHERE status = 'RUNNING' AND claimed_by IS NOT NULL AND claim_expires_at <= clock_timestamp()
    AND NOT ${hasProtectedLease(tables, `${tables.entries}.claimed_by`)} LIMIT $1`;

/** Writes the late run rows of lost nodes, which have not written them within the lease. Reads all entries. */
export function writeLateRowsOfLostNodes(
  db: Queryable,
  tables: Tables,
  limit: number,
): Promise<WrittenRows> {
  return write(db, tables, `ARRAY(${lostEntries(tables)})`, [limit]);
}

/** The entries whose late run rows `writeLateRowsOfLostNodes` would write. */
export async function findLateEntriesOfLostNodes(
  db: Queryable,
  tables: Tables,
  limit: number,
): Promise<string[]> {
  const found = await rows<{ id: string }>(
    db,
    `SELECT id::text FROM (${lostEntries(tables)}) lost`,
    [limit],
  );
  return found.map(({ id }) => id);
}

/** The entry of a run of which only the id is known. Reads all entries. */
export async function findEntryOfLateRun(
  db: Queryable,
  { entries }: Tables,
  runId: string,
): Promise<string | undefined> {
  const [found] = await rows<{ id: string }>(
    db,
    `SELECT id::text FROM ${entries} WHERE status = 'RUNNING' AND current_job_run_id = $1`,
    [runId],
  );
  return found?.id;
}

/**
 * Releases entries that this node claimed without receiving the answer. Each of its heartbeats writes the rows of the runs
 * that it holds, so an entry without a row for most of a lease is not held. Reads all entries. @returns how many
 */
export async function releaseUnacknowledged(
  db: Queryable,
  { entries, runs }: Tables,
  nodeId: string,
  leaseMs: number,
  heldEntryIds: string[],
): Promise<number> {
  const [row] = await rows<{ released: number }>(
    db,
    `WITH released AS (
       UPDATE ${entries} e SET status = 'AVAILABLE', retry = e.retry - 1, claimed_by = NULL, claimed_at = NULL,
         claim_expires_at = NULL, scheduled = e.scheduled OR e.crashes > 0, updated_at = clock_timestamp(),
         current_job_run_id = (SELECT r.id FROM ${runs} r
                               WHERE r.job_run_identifier = e.job_run_identifier AND r.retry = e.retry - 2)
       WHERE e.id IN (SELECT id FROM ${entries}
                      WHERE status = 'RUNNING' AND claimed_by = $1 AND id <> ALL ($3::bigint[])
                        AND claim_expires_at < clock_timestamp() + $2::float8 * interval '0.4 ms'
                      FOR NO KEY UPDATE SKIP LOCKED)
         AND e.status = 'RUNNING' AND e.claimed_by = $1
       RETURNING e.id
     ) SELECT count(*)::int AS released FROM released`,
    [nodeId, leaseMs, plainArray(heldEntryIds)],
  );
  return row?.released ?? 0;
}

async function write(
  db: Queryable,
  tables: Tables,
  entryIds: string,
  parameters: unknown[],
): Promise<WrittenRows> {
  const [row] = await rows<{ written: number; blocked: string | null }>(
    db,
    `WITH late AS (SELECT * FROM ${tables.writeLateRows} (${entryIds}))
     SELECT written, blocked_ids AS blocked FROM late`,
    parameters,
  );
  return { written: row?.written ?? 0, blockedEntryIds: row?.blocked?.split(',') ?? [] };
}
