import type { OutcomeKind } from '../../job/outcome.js';
import { BLOCKED } from '../../concurrency/lock-retry.js';
import type { RunFacts } from '../../job/run-facts.js';
import type { JsonValue } from '../../job/json.js';
import { asEntry, asRun, entryColumns, runColumns } from '../../database/columns.js';
import type { JobQueueEntry, JobRun } from '../../database/entities/index.js';
import type { JobNodeEnd } from '../../database/entities/job-node.entity.js';
import { rows, type Queryable, type Tables } from '../../database/tables.js';

/** What a node says in its row when it renews the leases of its runs. */
export interface NodeReport {
  /** Handlers that go on although their runs have ended. */
  abandoned: number;
  processes: unknown[];
  /** From features; null: none is registered. */
  facts: Record<string, JsonValue> | null;
}

const facts = ({ entries, templates }: Tables) => ({
  columns: `r.id::text AS "jobRunId", r.job_queue_entry_id::text AS "jobQueueEntryId", r.job_run_identifier AS "jobRunIdentifier", r.retry,
    coalesce(t.code, '') AS "templateCode", coalesce(e.max_retries, 0) AS "maxRetries",
    coalesce(e.uncounted_runs, 0) AS "uncountedRuns", coalesce(e.backoff, t.default_backoff) AS backoff`,
  joins: `LEFT JOIN ${entries} e ON e.id = r.job_queue_entry_id AND e.current_job_run_id = r.id
    LEFT JOIN ${templates} t ON t.id = r.job_template_id`,
});

/** What the verdict needs to know of a RUNNING run; null when it is DONE or gone. */
export async function runningFacts(
  db: Queryable,
  tables: Tables,
  runId: string,
): Promise<RunFacts | null> {
  const { columns, joins } = facts(tables);
  const [row] = await rows<RunFacts>(
    db,
    `SELECT ${columns} FROM ${tables.runs} r ${joins} WHERE r.id = $1 AND r.status = 'RUNNING'`,
    [runId],
  );
  return row ?? null;
}

/** What a lost run's end depends on beside its own facts. */
export interface LostRun extends RunFacts {
  /** Lost nodes that the job was charged with. */
  crashes: number;
  /** How its node has ended; null where it has not, or has no row. */
  nodeEnd: JobNodeEnd | null;
  /** Its row was written after its node was lost: nobody knows whether it had begun. */
  late: boolean;
}

/**
 * RUNNING runs whose lease is over, oldest first, but for those of a node that is alive and cannot renew them.
 * Reads the index of RUNNING runs, as small as what runs at once.
 */
export function expiredFacts(db: Queryable, tables: Tables, limit: number): Promise<LostRun[]> {
  const { columns, joins } = facts(tables);
  return rows<LostRun>(
    db,
    `SELECT ${columns}, coalesce(e.crashes, 0) AS crashes, n.end_reason AS "nodeEnd",
       coalesce(r.updated_at >= n.ended_at, false) AS late
     FROM ${tables.runs} r ${joins} LEFT JOIN ${tables.nodes} n ON n.id = r.node_id
     WHERE r.status = 'RUNNING' AND r.expires_at <= clock_timestamp() AND NOT ${hasProtectedLease(tables, 'r.node_id')}
     ORDER BY r.id LIMIT $1`,
    [limit],
  );
}

/** A run that does not belong to its node any more. */
export interface LostRunLease {
  jobRunId: string;
  /** How it ended; null where it has not, or where its row is gone. */
  outcome: OutcomeKind | null;
}

/**
 * Renews the leases of a node's runs, and writes its report to its row. A node that has ended renews nothing: its
 * heartbeat finds out. A run that is locked is left for the next time: waiting for it while holding other locks could
 * deadlock with a statement that ends several runs. A run that has a longer lease already (`extendLease`) is left alone.
 * @returns `lost`: those of the ids that are this node's no more, and why; `stranded`: runs that are this node's and
 *   have not been among the ids for most of a lease, so that no claim of them can still be under way
 */
export async function renewRuns(
  db: Queryable,
  { runs, nodes }: Tables,
  nodeId: string,
  leaseMs: number,
  runIds: string[],
  { abandoned, processes, facts: nodeFacts }: NodeReport,
): Promise<{
  lost: LostRunLease[];
  stranded: string[];
}> {
  const found = await rows<{
    jobRunId: string;
    outcome: OutcomeKind | null;
    stranded: boolean;
  }>(
    db,
    `WITH me AS (
       SELECT EXISTS (SELECT FROM ${nodes} WHERE id = $1 AND ended_at IS NOT NULL) AS ended
     ), renewed AS (
       UPDATE ${runs} SET expires_at = clock_timestamp() + $2::float8 * interval '1 ms'
       WHERE id IN (SELECT id FROM ${runs} WHERE id = ANY ($3::bigint[]) AND status = 'RUNNING' AND node_id = $1
                      AND expires_at <= clock_timestamp() + $2::float8 * interval '1 ms'
                    FOR NO KEY UPDATE SKIP LOCKED)
         AND NOT (SELECT ended FROM me)
       RETURNING id
     ), told AS (
       UPDATE ${nodes} SET renewed_until = clock_timestamp() + $2::float8 * interval '1 ms',
         abandoned = $4, processes = $5, facts = coalesce($6::jsonb, '{}')
       WHERE id = (SELECT id FROM ${nodes} WHERE id = $1 AND ended_at IS NULL FOR NO KEY UPDATE SKIP LOCKED)
     )
     SELECT asked.id::text AS "jobRunId", r.outcome, false AS stranded
     FROM unnest($3::bigint[]) AS asked (id) LEFT JOIN ${runs} r ON r.id = asked.id
     WHERE asked.id NOT IN (SELECT id FROM renewed) AND NOT (SELECT ended FROM me)
       AND (r.status = 'RUNNING' AND r.node_id = $1) IS NOT TRUE
     UNION ALL
     SELECT id::text, NULL, true FROM ${runs}
     WHERE status = 'RUNNING' AND node_id = $1 AND id <> ALL ($3::bigint[])
       AND expires_at < clock_timestamp() + $2::float8 * interval '0.4 ms' AND NOT (SELECT ended FROM me)`,
    [
      nodeId,
      leaseMs,
      runIds,
      abandoned,
      JSON.stringify(processes),
      nodeFacts && JSON.stringify(nodeFacts),
    ],
  );
  return {
    lost: found.filter(({ stranded }) => !stranded),
    stranded: found.filter(({ stranded }) => stranded).map(({ jobRunId }) => jobRunId),
  };
}

/** This node's RUNNING runs that are past their timeout, or that somebody asked to kill. */
export function runsToStop(
  db: Queryable,
  { runs }: Tables,
  nodeId: string,
): Promise<{ jobRunId: string; killRequested: 'killed' | 'cancelled' | null }[]> {
  return rows(
    db,
    `SELECT id::text AS "jobRunId", kill_requested AS "killRequested" FROM ${runs}
     WHERE status = 'RUNNING' AND node_id = $1
       AND (timeout_at <= clock_timestamp() OR kill_requested IS NOT NULL)`,
    [nodeId],
  );
}

/**
 * Requests that the owning node stops a run. A cancel stays one, whatever is requested later. Waits for no lock.
 * @returns whether the run is RUNNING; BLOCKED: another transaction has its row locked
 */
export async function requestKill(
  db: Queryable,
  { runs }: Tables,
  runId: string,
  kind: 'killed' | 'cancelled',
): Promise<boolean | typeof BLOCKED> {
  const [row] = await rows<{ requested: boolean; running: boolean }>(
    db,
    `WITH requested AS (
       UPDATE ${runs} SET updated_at = clock_timestamp(),
         kill_requested = CASE WHEN kill_requested = 'cancelled' THEN kill_requested ELSE $2 END
       WHERE id = (SELECT id FROM ${runs} WHERE id = $1 AND status = 'RUNNING' FOR NO KEY UPDATE SKIP LOCKED)
       RETURNING id
     ) SELECT EXISTS (SELECT FROM requested) AS requested,
         EXISTS (SELECT FROM ${runs} WHERE id = $1 AND status = 'RUNNING') AS running`,
    [runId, kind],
  );
  if (row?.requested) return true;
  return row?.running ? BLOCKED : false;
}

/** Those that are there, by id. */
export async function findRuns(
  db: Queryable,
  { runs }: Tables,
  runIds: string[],
): Promise<JobRun[]> {
  const found = await rows(
    db,
    `SELECT ${runColumns('r')} FROM ${runs} r WHERE r.id = ANY ($1::bigint[]) ORDER BY r.id`,
    [runIds],
  );
  return found.map(asRun);
}

/** A run's context as it is stored, envelope and all. */
export async function storedContext(
  db: Queryable,
  { runs }: Tables,
  runId: string,
): Promise<{ jobRunIdentifier: string; jobContext: JsonValue } | null> {
  const [row] = await rows<{ jobRunIdentifier: string; jobContext: JsonValue }>(
    db,
    `SELECT job_run_identifier AS "jobRunIdentifier", job_context AS "jobContext" FROM ${runs} WHERE id = $1`,
    [runId],
  );
  return row ?? null;
}

/** The newest run of an identifier. */
export async function findLastRun(
  db: Queryable,
  { runs }: Tables,
  identifier: string,
): Promise<JobRun | null> {
  const [row] = await rows(
    db,
    `SELECT ${runColumns('r')} FROM ${runs} r WHERE r.job_run_identifier = $1 ORDER BY r.retry DESC LIMIT 1`,
    [identifier],
  );
  return row ? asRun(row) : null;
}

export async function findEntry(
  db: Queryable,
  { entries }: Tables,
  by: { id: string } | { jobRunIdentifier: string },
): Promise<JobQueueEntry | null> {
  const [condition, value] =
    'id' in by ? ['e.id = $1', by.id] : ['e.job_run_identifier = $1', by.jobRunIdentifier];
  const [row] = await rows(db, `SELECT ${entryColumns('e')} FROM ${entries} e WHERE ${condition}`, [
    value,
  ]);
  return row ? asEntry(row) : null;
}

/**
 * The place of an AVAILABLE entry in the queue: 1 is next; null when it is not queued. Counts what is
 * ahead of it, so it costs as much as the place is far.
 */
export async function queuePosition(
  db: Queryable,
  { entries }: Tables,
  identifier: string,
): Promise<number | null> {
  const [row] = await rows<{ position: number }>(
    db,
    `SELECT 1 + (
       SELECT count(*) FROM ${entries} ahead
       WHERE ahead.status = 'AVAILABLE' AND NOT ahead.scheduled
         AND (ahead.priority, ahead.id) < (e.priority, e.id)
     )::int AS position
     FROM ${entries} e WHERE e.job_run_identifier = $1 AND e.status = 'AVAILABLE'`,
    [identifier],
  );
  return row?.position ?? null;
}

/** Whether this is the first run of its entry, and its `startBefore` has passed. */
export async function isTooLate(
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

/**
 * Whether a run of this node is protected although its lease is over: the node has not ended, and it has renewed no run
 * lease for as long as one lasts. Then its event loop is blocked, or it cannot reach the database, and the node's own
 * lease decides. A run that a renewing node has left out for a lease is not protected.
 */
export const hasProtectedLease = ({ nodes }: Tables, nodeId: string) =>
  `EXISTS (SELECT FROM ${nodes} owner WHERE owner.id = ${nodeId} AND owner.ended_at IS NULL
     AND owner.renewed_until <= clock_timestamp())`;
