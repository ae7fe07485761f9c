import type { OutcomeKind } from '../../job/outcome.js';
import { BLOCKED } from '../../concurrency/lock-retry.js';
import type { RunFacts } from '../../job/run-facts.js';
import type { JsonValue } from '../../job/json.js';
import { asEntry, asRun, entryColumns, runColumns } from '../../database/columns.js';
import type { JobQueueEntry, JobRun } from '../../database/entities/index.js';
import type { JobNodeEnd } from '../../database/entities/job-node.entity.js';
import { rows, type Queryable, type Tables } from '../../database/tables.js';

/** The columns of a node's row that are written with the renewal of its run leases. */
export interface NodeReport {
  /** Handlers that still work although their runs have ended. */
  abandoned: number;
  processes: unknown[];
  /** Facts of features; null: no feature is registered. */
  facts: Record<string, JsonValue> | null;
}

const facts = ({ entries, templates }: Tables) => ({
  columns: `r.id::text AS "jobRunId", r.job_queue_entry_id::text AS "jobQueueEntryId", r.job_run_identifier AS "jobRunIdentifier", r.retry,
    coalesce(t.code, '') AS "templateCode", coalesce(e.max_retries, 0) AS "maxRetries",
    coalesce(e.uncounted_runs, 0) AS "uncountedRuns", coalesce(e.backoff, t.default_backoff) AS backoff`,
  joins: `LEFT JOIN ${entries} e ON e.id = r.job_queue_entry_id AND e.current_job_run_id = r.id
    LEFT JOIN ${templates} t ON t.id = r.job_template_id`,
});

/** The facts that decide a RUNNING run's verdict; null when the run is DONE or deleted. */
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

/** A run whose lease is over, with the facts that decide its outcome. */
export interface LostRun extends RunFacts {
  /** Crashes that count against the job. */
  crashes: number;
  /** How its node has ended; null while the node lives, or when it has no row. */
  nodeEnd: JobNodeEnd | null;
  /** Its row was written after its node was lost: it is unknown whether the handler had started. */
  late: boolean;
}

/**
 * RUNNING runs whose lease is over, oldest first. Excludes runs of a living node that cannot renew them. Reads the index
 * of RUNNING runs, which has as many rows as jobs run at once.
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
  /** How it ended; null while it is RUNNING, or when its row is deleted. */
  outcome: OutcomeKind | null;
}

/**
 * Renews the leases of a node's runs, and writes its report to its row. A node that has ended renews nothing: its
 * heartbeat detects that. A locked run is skipped until the next renewal: waiting for it while holding other locks could
 * deadlock with a statement that ends several runs. A run with a longer lease (`extendLease`) is not changed.
 * @returns `lost`: the ids that do not belong to this node any more, and why; `stranded`: runs that belong to this node
 *   and were not among the ids for most of a lease, so no claim of them can still be in flight
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
    `WITH this_node AS (
       SELECT EXISTS (SELECT FROM ${nodes} WHERE id = $1 AND ended_at IS NOT NULL) AS ended
     ), renewed AS (
       UPDATE ${runs} SET expires_at = clock_timestamp() + $2::float8 * interval '1 ms'
       WHERE id IN (SELECT id FROM ${runs} WHERE id = ANY ($3::bigint[]) AND status = 'RUNNING' AND node_id = $1
                      AND expires_at <= clock_timestamp() + $2::float8 * interval '1 ms'
                    FOR NO KEY UPDATE SKIP LOCKED)
         AND NOT (SELECT ended FROM this_node)
       RETURNING id
     ), reported AS (
       UPDATE ${nodes} SET renewed_until = clock_timestamp() + $2::float8 * interval '1 ms',
         abandoned = $4, processes = $5, facts = coalesce($6::jsonb, '{}')
       WHERE id = (SELECT id FROM ${nodes} WHERE id = $1 AND ended_at IS NULL FOR NO KEY UPDATE SKIP LOCKED)
     )
     SELECT held.id::text AS "jobRunId", r.outcome, false AS stranded
     FROM unnest($3::bigint[]) AS held (id) LEFT JOIN ${runs} r ON r.id = held.id
     WHERE held.id NOT IN (SELECT id FROM renewed) AND NOT (SELECT ended FROM this_node)
       AND (r.status = 'RUNNING' AND r.node_id = $1) IS NOT TRUE
     UNION ALL
     SELECT id::text, NULL, true FROM ${runs}
     WHERE status = 'RUNNING' AND node_id = $1 AND id <> ALL ($3::bigint[])
       AND expires_at < clock_timestamp() + $2::float8 * interval '0.4 ms' AND NOT (SELECT ended FROM this_node)`,
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

/** This node's RUNNING runs that are past their timeout or have a kill request. */
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

/** The runs that exist, in the order of their ids. */
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

/** A run's context as it is stored, with its envelope. */
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
 * The place of an AVAILABLE entry in the queue: 1 is next; null when it is not queued. Counts the entries ahead of it,
 * so the cost grows with the position.
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
 * Whether a run of this node is protected although its lease is over: the node has not ended, and has renewed no run
 * lease for the length of one. Then its event loop is blocked, or it cannot reach the database, and the node's own lease
 * decides. A run that a renewing node did not renew for a lease is not protected.
 */
export const hasProtectedLease = ({ nodes }: Tables, nodeId: string) =>
  `EXISTS (SELECT FROM ${nodes} owner WHERE owner.id = ${nodeId} AND owner.ended_at IS NULL
     AND owner.renewed_until <= clock_timestamp())`;
