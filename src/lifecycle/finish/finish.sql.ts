import type { EntryFate } from '../../job/events.js';
import type { JobRunResult } from '../../job/status.js';
import { dueAgainAt, outOfReady } from '../claim/reopen-rules.js';
import {
  jsonOrNull,
  plainArray,
  rows,
  type Queryable,
  type Tables,
} from '../../database/tables.js';

export interface RunEnd {
  jobRunId: string;
  jobQueueEntryId: string;
  result: JobRunResult;
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
  { end }: Tables,
  asked: RunEnd[],
): Promise<(EntryFate | null)[]> {
  // Two ends of one run in a batch: the first given is it, but one that may not land gives way.
  const chosen = new Map<string, RunEnd>();
  for (const asking of asked) {
    const other = chosen.get(asking.jobRunId);
    if (!other || (other.onlyIfExpired && !asking.onlyIfExpired))
      chosen.set(asking.jobRunId, asking);
  }
  const ends = [...chosen.values()];
  const [row] = await rows<{
    ended: string | null;
    removed: string | null;
    reopened: string | null;
  }>(
    db,
    `WITH ended AS (SELECT * FROM ${end} ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10))
     SELECT ended_ids AS ended, removed_ids AS removed, reopened_ids AS reopened FROM ended`,
    [
      plainArray(ends.map(({ jobRunId }) => jobRunId)),
      plainArray(ends.map(({ jobQueueEntryId }) => jobQueueEntryId)),
      flags(ends, ({ result }) => result === 'FAILED'),
      ends.some(({ reason }) => reason !== null) ? ends.map(({ reason }) => reason) : null,
      jsonOrNull(ends.map(({ error }) => error)),
      jsonOrNull(ends.map(({ output }) => output)),
      flags(ends, ({ entry }) => entry === 'reopen'),
      ends.some(({ delayMs }) => delayMs > 0)
        ? plainArray(ends.map(({ delayMs }) => delayMs))
        : null,
      flags(ends, ({ counts }) => !counts),
      flags(ends, ({ onlyIfExpired }) => onlyIfExpired),
    ],
  );
  if (row && row.ended === null)
    return asked.map((asking) => (chosen.get(asking.jobRunId) === asking ? 'removed' : null));
  const fates = new Map<string, EntryFate>();
  for (const id of idsIn(row?.ended)) fates.set(id, 'kept');
  for (const id of idsIn(row?.removed)) fates.set(id, 'removed');
  for (const id of idsIn(row?.reopened)) fates.set(id, 'reopened');
  return asked.map((asking) =>
    chosen.get(asking.jobRunId) === asking ? (fates.get(asking.jobRunId) ?? null) : null,
  );
}

/** The row of a run may be locked by a transaction that is left open, for as long as its handler lives. */
const LOCK_MS = 2_000;

/** The same of one, which may have to wait for a lock. @throws QueryFailedError 55P03 where that takes long */
export const endRunInTime = (
  db: { transaction<T>(work: (db: Queryable) => Promise<T>): Promise<T> },
  tables: Tables,
  end: RunEnd,
): Promise<EntryFate | null> =>
  db.transaction(async (within) => {
    await within.query(`SET LOCAL lock_timeout = ${LOCK_MS}`);
    const [landed] = await endRuns(within, tables, [end]);
    return landed ?? null;
  });

/**
 * What became of the entries of runs that ended as these ends say (null for the others): to be asked where the answer to
 * an end was lost, which may have landed.
 */
export async function findEnds(
  db: Queryable,
  { entries, runs }: Tables,
  ends: RunEnd[],
): Promise<(EntryFate | null)[]> {
  const found = await rows<{ jobRunId: string; fate: EntryFate }>(
    db,
    `SELECT r.id::text AS "jobRunId",
       CASE WHEN i.reopen AND r.kill_requested IS DISTINCT FROM 'cancelled' THEN 'reopened'
            WHEN EXISTS (SELECT FROM ${entries} e WHERE e.id = i.entry_id) THEN 'kept' ELSE 'removed' END AS fate
     FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::boolean[]) WITH ORDINALITY
       AS i (run_id, entry_id, result, reason, reopen, ord)
     JOIN ${runs} r ON r.id = i.run_id
     WHERE r.status = 'DONE' AND r.result = i.result AND r.reason IS NOT DISTINCT FROM i.reason
       AND r.error IS NOT DISTINCT FROM nullif($6::jsonb -> (i.ord - 1)::int, 'null')
       AND r.output IS NOT DISTINCT FROM nullif($7::jsonb -> (i.ord - 1)::int, 'null')`,
    [
      plainArray(ends.map(({ jobRunId }) => jobRunId)),
      plainArray(ends.map(({ jobQueueEntryId }) => jobQueueEntryId)),
      plainArray(ends.map(({ result }) => result)),
      ends.map(({ reason }) => reason),
      plainArray(ends.map(({ entry }) => entry === 'reopen')),
      jsonOrNull(ends.map(({ error }) => error)),
      jsonOrNull(ends.map(({ output }) => output)),
    ],
  );
  const fates = new Map(found.map(({ jobRunId, fate }) => [jobRunId, fate]));
  return ends.map(({ jobRunId }) => fates.get(jobRunId) ?? null);
}

const idsIn = (text: string | null | undefined) => text?.split(',') ?? [];

/** NULL, which the function takes for all false, where it is. */
function flags(ends: RunEnd[], is: (end: RunEnd) => boolean): string | null {
  return ends.some(is) ? plainArray(ends.map(is)) : null;
}

/**
 * Reopens RUNNING entries whose current run is not RUNNING: somebody deleted it, or edited rows by
 * hand. @returns how many
 */
export async function reopenOrphans(db: Queryable, tables: Tables, limit: number): Promise<number> {
  const { entries, runs } = tables;
  const [row] = await rows<{ reopened: number }>(
    db,
    `WITH orphans AS MATERIALIZED (
       SELECT e.id FROM ${entries} e
       WHERE e.status = 'RUNNING' AND e.claimed_by IS NULL
         AND NOT EXISTS (SELECT FROM ${runs} r WHERE r.id = e.current_job_run_id AND r.status = 'RUNNING')
       ORDER BY e.id LIMIT $1 FOR UPDATE SKIP LOCKED
     ), reopened AS (
       UPDATE ${entries} e SET status = 'AVAILABLE', scheduled = ${outOfReady('e')},
         run_at = ${dueAgainAt(tables, 'e')}, updated_at = clock_timestamp()
       FROM orphans WHERE e.id = orphans.id AND e.status = 'RUNNING' RETURNING e.id
     ) SELECT count(*)::int AS reopened FROM reopened`,
    [limit],
  );
  return row?.reopened ?? 0;
}
