import type { EntryFate } from '../../job/events.js';
import type { Verdict } from '../../job/verdict.js';
import type { OutcomeKind } from '../../job/outcome.js';
import { isNotReady, reopenedRunAt } from '../claim/claim.sql.js';
import { BLOCKED } from '../../concurrency/lock-retry.js';
import { MARK } from '../../database/transactions/job-transaction.js';
import {
  jsonOrNull,
  plainArray,
  rows,
  type Queryable,
  type Tables,
} from '../../database/tables.js';

export interface RunEnd extends Verdict {
  jobRunId: string;
  jobQueueEntryId: string;
  outcome: OutcomeKind;
  /** The end lands only if the run's lease is over, because it was decided on an earlier read. */
  onlyIfExpired: boolean;
  /** The row of the run is probably not written yet. Only chooses the faster statement. */
  hasLateRow: boolean;
}

/** What happened to the entry; null: the end did not land; BLOCKED: another transaction has a row locked. */
export type Landing = EntryFate | typeof BLOCKED | null;

export interface FinishRunsOptions {
  /** Ends the runs that no other transaction has locked, and answers BLOCKED for the others. */
  skipLocked?: boolean;
  /** How long it waits for a lock, in milliseconds; null: as long as the transaction allows. */
  lockMs?: number | null;
  /** SQL functions that are called with the ended runs, in the same transaction. */
  hooks?: readonly string[] | undefined;
}

/**
 * Ends runs, and removes or reopens their entries, in one statement. An end lands only if its run is
 * RUNNING, and changes the entry only if that run is the entry's current one: the loser of a race
 * changes nothing. A job that was cancelled is not reopened, however its run ends.
 *
 * Two batches that overlap may deadlock, which is rare: a node ends its own runs, a pass those of lost
 * nodes. The lock timeout resolves it. Locking the runs in order first would write each twice.
 * @throws QueryFailedError 55P03 where a row is locked for longer than the lock timeout, without `skipLocked`
 */
export async function finishRuns(
  db: Queryable,
  tables: Tables,
  requested: RunEnd[],
  { skipLocked = false, lockMs = null, hooks }: FinishRunsOptions = {},
): Promise<Landing[]> {
  const chosen = chooseEnds(requested);
  let ends = [...chosen.values()];
  const late = ends.some(({ hasLateRow }) => hasLateRow);
  // The heartbeat locks entries in this order as well, when it writes late rows.
  if (late) ends = ends.toSorted(byEntry);
  const [row] = await rows<FinishedIds>(
    db,
    `WITH finished AS (SELECT * FROM ${tables.finishRuns} ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15))
     SELECT ended_ids AS ended, removed_ids AS removed, reopened_ids AS reopened, blocked_ids AS blocked FROM finished`,
    [
      plainArray(ends.map(({ jobRunId }) => jobRunId)),
      plainArray(ends.map(({ jobQueueEntryId }) => jobQueueEntryId)),
      flags(ends, ({ result }) => result === 'FAILED'),
      ends.some(({ outcome }) => outcome !== 'completed')
        ? plainArray(ends.map(({ outcome }) => outcome))
        : null,
      ends.some(({ reason }) => reason !== null) ? ends.map(({ reason }) => reason) : null,
      jsonOrNull(ends.map(({ error }) => error)),
      jsonOrNull(ends.map(({ output }) => output)),
      flags(ends, ({ entry }) => entry === 'reopen'),
      ends.some(({ delayMs }) => delayMs > 0)
        ? plainArray(ends.map(({ delayMs }) => delayMs))
        : null,
      flags(ends, ({ counts }) => !counts),
      flags(ends, ({ onlyIfExpired }) => onlyIfExpired),
      late,
      skipLocked,
      lockMs,
      hooks ?? null,
    ],
  );
  const landings = row && row.ended === null ? undefined : landingsIn(row);
  return requested.map((end) => {
    if (chosen.get(end.jobRunId) !== end) return null;
    return landings ? (landings.get(end.jobRunId) ?? null) : 'removed';
  });
}

/** Of two ends of one run in a batch the first wins, but an unconditional end wins over a conditional one. */
function chooseEnds(requested: RunEnd[]): Map<string, RunEnd> {
  const chosen = new Map<string, RunEnd>();
  for (const end of requested) {
    const other = chosen.get(end.jobRunId);
    if (!other || (other.onlyIfExpired && !end.onlyIfExpired)) chosen.set(end.jobRunId, end);
  }
  return chosen;
}

interface FinishedIds {
  /** Null: all of the runs ended, and their entries were removed. */
  ended: string | null;
  removed: string | null;
  reopened: string | null;
  blocked: string | null;
}

function landingsIn(ids: FinishedIds | undefined): Map<string, Landing> {
  const landings = new Map<string, Landing>();
  for (const id of idsIn(ids?.ended)) landings.set(id, 'kept');
  for (const id of idsIn(ids?.removed)) landings.set(id, 'removed');
  for (const id of idsIn(ids?.reopened)) landings.set(id, 'reopened');
  for (const id of idsIn(ids?.blocked)) landings.set(id, BLOCKED);
  return landings;
}

const idsIn = (text: string | null | undefined) => text?.split(',') ?? [];

/** NULL means false for every end. */
function flags(ends: RunEnd[], is: (end: RunEnd) => boolean): string | null {
  return ends.some(is) ? plainArray(ends.map(is)) : null;
}

/** Ids are decimal texts of up to 19 digits: more than a number holds. */
function byEntry({ jobQueueEntryId: a }: RunEnd, { jobQueueEntryId: b }: RunEnd): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

/** The end of a run that completed, as a handler's transaction writes it. */
export interface CompletedRun {
  jobRunId: string;
  jobQueueEntryId: string;
  /** Under which the run was claimed. */
  nodeId: string;
  /** JSON text, or null. */
  output: string | null;
}

/**
 * Ends a run that completed within a transaction of its handler, so that both are committed together. Lands only if the
 * run is RUNNING on that node. Its row is locked until the transaction ends.
 * @param marked lands only in the transaction that the engine opened for the handler
 * @param idleMs from here on the server ends the transaction when it is idle for so long
 * @returns what happened to the entry, or null when the end did not land
 */
export async function finishInTransaction(
  transaction: Queryable,
  { runs, finishRuns }: Tables,
  { jobRunId, jobQueueEntryId, nodeId, output }: CompletedRun,
  {
    marked,
    idleMs,
    hooks,
  }: { marked: boolean; idleMs?: number; hooks?: readonly string[] | undefined },
): Promise<EntryFate | null> {
  const [row] = await rows<{ ended: string | null }>(
    transaction,
    `WITH own AS MATERIALIZED (
       SELECT id FROM ${runs} WHERE id = $1 AND status = 'RUNNING' AND node_id = $3
         AND (NOT $5::boolean OR current_setting('${MARK}', true) = $1::bigint::text) FOR NO KEY UPDATE
     ), finished AS (
       SELECT f.ended_ids FROM own,
         LATERAL ${finishRuns} (ARRAY[own.id], ARRAY[$2::bigint], NULL, NULL, NULL, NULL, $4::jsonb, NULL, NULL, NULL, NULL,
           false, false, NULL, $7::text[]) f
     ) SELECT ended_ids AS ended,
         CASE WHEN $6::text IS NOT NULL THEN set_config('idle_in_transaction_session_timeout', $6, true) END
       FROM finished`,
    [
      jobRunId,
      jobQueueEntryId,
      nodeId,
      jsonOrNull([output]),
      marked,
      idleMs === undefined ? null : String(idleMs),
      hooks ?? null,
    ],
  );
  if (!row || row.ended === '') return null;
  return row.ended === null ? 'removed' : 'kept';
}

export interface MissedRun {
  jobRunId: string;
  jobRunIdentifier: string;
  templateCode: string;
  retry: number;
}

/**
 * Ends entries that were never started and whose `startBefore` is over. They are removed, and a run of each stays as
 * history, FAILED "Missed". @param nodeId stored as the node of these runs
 */
export function finishMissed(
  db: Queryable,
  tables: Tables,
  {
    nodeId,
    limit,
    hooks,
  }: { nodeId: string; limit: number; hooks?: readonly string[] | undefined },
): Promise<MissedRun[]> {
  return rows<MissedRun>(
    db,
    `SELECT run_id::text AS "jobRunId", identifier AS "jobRunIdentifier", retry_number AS retry,
       template_code AS "templateCode"
     FROM ${tables.finishMissed} ($1, $2, $3)`,
    [nodeId, limit, hooks ?? null],
  );
}

/**
 * Looks up ends whose answer was lost, and which may have landed.
 * @returns what happened to the entries of runs that ended exactly so; null for the others
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
       AS i (run_id, entry_id, outcome, reason, reopen, ord)
     JOIN ${runs} r ON r.id = i.run_id
     WHERE r.status = 'DONE' AND r.outcome = i.outcome AND r.reason IS NOT DISTINCT FROM i.reason
       AND r.error IS NOT DISTINCT FROM nullif($6::jsonb -> (i.ord - 1)::int, 'null')
       AND r.output IS NOT DISTINCT FROM nullif($7::jsonb -> (i.ord - 1)::int, 'null')`,
    [
      plainArray(ends.map(({ jobRunId }) => jobRunId)),
      plainArray(ends.map(({ jobQueueEntryId }) => jobQueueEntryId)),
      plainArray(ends.map(({ outcome }) => outcome)),
      ends.map(({ reason }) => reason),
      plainArray(ends.map(({ entry }) => entry === 'reopen')),
      jsonOrNull(ends.map(({ error }) => error)),
      jsonOrNull(ends.map(({ output }) => output)),
    ],
  );
  const fates = new Map(found.map(({ jobRunId, fate }) => [jobRunId, fate]));
  return ends.map(({ jobRunId }) => fates.get(jobRunId) ?? null);
}

/**
 * Renews the lease of a run once, for as long as its handler's transaction may take. The heartbeat does not touch its row
 * from then on, because a transaction that is stricter than READ COMMITTED cannot end a run whose row changed since it began.
 * Waits for no lock. @returns false when the run does not belong to that node any more; BLOCKED: its row is locked
 */
export async function extendLease(
  db: Queryable,
  { runs }: Tables,
  { jobRunId, nodeId, forMs }: { jobRunId: string; nodeId: string; forMs: number },
): Promise<boolean | typeof BLOCKED> {
  const [row] = await rows<{ extended: boolean; owned: boolean }>(
    db,
    `WITH extended AS (
       UPDATE ${runs} SET expires_at = greatest(expires_at, clock_timestamp() + $3::float8 * interval '1 ms')
       WHERE id = (SELECT id FROM ${runs} WHERE id = $1 AND status = 'RUNNING' AND node_id = $2
                   FOR NO KEY UPDATE SKIP LOCKED)
       RETURNING id
     ) SELECT EXISTS (SELECT FROM extended) AS extended,
         EXISTS (SELECT FROM ${runs} WHERE id = $1 AND status = 'RUNNING' AND node_id = $2) AS owned`,
    [jobRunId, nodeId, forMs],
  );
  if (row?.extended) return true;
  return row?.owned ? BLOCKED : false;
}

/**
 * Reopens RUNNING entries whose current run is not RUNNING, because rows were deleted or edited by hand.
 * @returns how many
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
       UPDATE ${entries} e SET status = 'AVAILABLE', scheduled = ${isNotReady('e')},
         run_at = ${reopenedRunAt(tables, 'e')}, updated_at = clock_timestamp()
       FROM orphans WHERE e.id = orphans.id AND e.status = 'RUNNING' RETURNING e.id
     ) SELECT count(*)::int AS reopened FROM reopened`,
    [limit],
  );
  return row?.reopened ?? 0;
}
