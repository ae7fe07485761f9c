import type { JobProcessFacts } from '../job/process-facts.js';
import type { JobNodeEnd } from '../database/entities/job-node.entity.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';

/** The facts with which a node registers. */
export interface NodeIdentity {
  id: string;
  engineName: string;
  host: string;
  pid: number;
  version: string;
  templateCodes: string[];
  concurrency: number;
}

/** The values that a node reports with each heartbeat. */
export interface NodeVitals {
  /** Milliseconds until the node counts as lost unless another heartbeat comes. */
  leaseMs: number;
  running: number;
  eventLoopLagMs: number;
  /** For how long its event loop has been blocked; null when it is not. */
  blockedMs: number | null;
  rssBytes: number;
}

export interface HeartbeatAnswer {
  /** Jobs that may have killed a node wait to run again. */
  hasSuspects: boolean;
}

const hasSuspects = ({ entries }: Tables) =>
  `EXISTS (SELECT FROM ${entries} WHERE crashes > 0 AND status = 'AVAILABLE') AS "hasSuspects"`;

/** @returns null when the node with this id has ended */
export async function registerNode(
  db: Queryable,
  tables: Tables,
  node: NodeIdentity,
  leaseMs: number,
): Promise<HeartbeatAnswer | null> {
  const [answer] = await rows<HeartbeatAnswer>(
    db,
    `WITH joined AS (
       INSERT INTO ${tables.nodes} AS n (id, engine_name, host, pid, version, template_codes, concurrency, expires_at, renewed_until)
       SELECT $1, $2, $3, $4, $5, $6::text[], $7, now + $8::float8 * interval '1 ms', now + $8::float8 * interval '1 ms'
       FROM clock_timestamp() AS now
       ON CONFLICT (id) DO UPDATE SET heartbeats = n.heartbeats + 1, heartbeat_at = clock_timestamp(), expires_at = excluded.expires_at
         WHERE n.ended_at IS NULL
       RETURNING id
     ) SELECT ${hasSuspects(tables)} FROM joined`,
    [
      node.id,
      node.engineName,
      node.host,
      node.pid,
      node.version,
      node.templateCodes,
      node.concurrency,
      leaseMs,
    ],
  );
  return answer ?? null;
}

/** Renews the node's lease. @returns null when the node has ended: another node declared it lost, or its row was deleted */
export async function heartbeatNode(
  db: Queryable,
  tables: Tables,
  id: string,
  { leaseMs, running, eventLoopLagMs, blockedMs, rssBytes }: NodeVitals,
): Promise<HeartbeatAnswer | null> {
  const [answer] = await rows<HeartbeatAnswer>(
    db,
    `WITH renewed AS (
       UPDATE ${tables.nodes} SET heartbeats = heartbeats + 1, heartbeat_at = clock_timestamp(),
         expires_at = clock_timestamp() + $2::float8 * interval '1 ms', running = $3, event_loop_lag_ms = $4,
         blocked_since = clock_timestamp() - $5::float8 * interval '1 ms', rss_bytes = $6
       WHERE id = $1 AND ended_at IS NULL RETURNING id
     ) SELECT ${hasSuspects(tables)} FROM renewed`,
    [id, leaseMs, running, Math.round(eventLoopLagMs), blockedMs, rssBytes],
  );
  return answer ?? null;
}

/** Ends a node that has not ended. @returns why it has ended, now or before; null when its row is gone */
export async function endNode(
  db: Queryable,
  { nodes }: Tables,
  id: string,
  reason: JobNodeEnd,
): Promise<JobNodeEnd | null> {
  const [row] = await rows<{ reason: JobNodeEnd }>(
    db,
    `WITH ended AS (
       UPDATE ${nodes} SET ended_at = clock_timestamp(), end_reason = $2, running = 0, blocked_since = NULL
       WHERE id = $1 AND ended_at IS NULL RETURNING end_reason
     ) SELECT end_reason AS reason FROM ended
     UNION ALL SELECT end_reason FROM ${nodes} WHERE id = $1 AND ended_at IS NOT NULL LIMIT 1`,
    [id, reason],
  );
  return row?.reason ?? null;
}

export interface SeenNode {
  id: string;
  heartbeats: string;
  /** Its lease is over by the database's clock. */
  overdue: boolean;
}

/** The nodes that have not ended: one row per process. */
export function livingNodes(db: Queryable, { nodes }: Tables): Promise<SeenNode[]> {
  return rows<SeenNode>(
    db,
    `SELECT id, heartbeats::text, expires_at <= clock_timestamp() AS overdue FROM ${nodes} WHERE ended_at IS NULL`,
  );
}

/**
 * Ends the nodes as lost that are still overdue and have had no heartbeat since they were seen, and charges the jobs that
 * may have killed them (`crashes`):
 * - the jobs of its runs that were charged before; or, if there are none,
 * - all jobs that can have been running: the oldest runs, as many as the node runs at once. Runs are numbered in the
 *   order they start, so the others were prefetched.
 *
 * A run whose row was not written yet is not charged: it may not have begun. A run lease that would outlast the node's
 * lease (`extendLease`) is cut to the node's.
 */
export function declareLost(
  db: Queryable,
  { nodes, runs, entries }: Tables,
  seen: Pick<SeenNode, 'id' | 'heartbeats'>[],
): Promise<{ id: string; charged: number }[]> {
  return rows(
    db,
    `WITH lost AS (
       UPDATE ${nodes} n SET ended_at = clock_timestamp(), end_reason = 'lost'
       FROM unnest($1::text[], $2::bigint[]) AS seen (id, heartbeats)
       WHERE n.id = seen.id AND n.heartbeats = seen.heartbeats AND n.ended_at IS NULL AND n.expires_at <= clock_timestamp()
       RETURNING n.id, n.concurrency, n.expires_at - n.heartbeat_at AS lease
     ), lost_runs AS (
       SELECT lost.id AS node_id, r.id AS run_id, e.id AS entry_id,
         CASE WHEN bool_or(e.crashes > 0) OVER (PARTITION BY lost.id) THEN e.crashes > 0
         ELSE row_number() OVER (PARTITION BY lost.id ORDER BY r.id) <= lost.concurrency END AS charge
       FROM lost JOIN ${runs} r ON r.node_id = lost.id AND r.status = 'RUNNING'
         JOIN ${entries} e ON e.id = r.job_queue_entry_id AND e.current_job_run_id = r.id
     ), charged AS (
       UPDATE ${entries} e SET crashes = e.crashes + 1 FROM lost_runs
       WHERE lost_runs.charge AND e.id = lost_runs.entry_id AND e.current_job_run_id = lost_runs.run_id
       RETURNING lost_runs.node_id
     ), shortened AS (
       UPDATE ${runs} r SET expires_at = clock_timestamp() + cut.lease FROM (
         SELECT longer.id, lost.lease FROM lost JOIN ${runs} longer ON longer.node_id = lost.id AND longer.status = 'RUNNING'
         WHERE longer.expires_at > clock_timestamp() + lost.lease FOR NO KEY UPDATE OF longer SKIP LOCKED
       ) cut WHERE r.id = cut.id
     ) SELECT id, (SELECT count(*)::int FROM charged WHERE node_id = lost.id) AS charged FROM lost`,
    [seen.map(({ id }) => id), seen.map(({ heartbeats }) => heartbeats)],
  );
}

/** The last report of another node about the process of a RUNNING run. */
export async function findProcessFacts(
  db: Queryable,
  { nodes, runs }: Tables,
  jobRunId: string,
): Promise<JobProcessFacts | null> {
  const [row] = await rows<{ facts: JobProcessFacts }>(
    db,
    `SELECT p.facts FROM ${runs} r JOIN ${nodes} n ON n.id = r.node_id, jsonb_array_elements(n.processes) AS p (facts)
     WHERE r.id = $1 AND r.status = 'RUNNING' AND n.ended_at IS NULL AND p.facts->>'jobRunId' = r.id::text`,
    [jobRunId],
  );
  if (!row) return null;
  const { facts } = row;
  const { progress } = facts;
  return {
    ...facts,
    startedAt: new Date(facts.startedAt),
    seenAt: new Date(facts.seenAt),
    progress: progress && { ...progress, at: new Date(progress.at) },
  };
}

/** Deletes the rows of nodes that ended a day ago. @returns how many */
export async function pruneNodes(db: Queryable, { nodes }: Tables): Promise<number> {
  const [row] = await rows<{ pruned: number }>(
    db,
    `WITH pruned AS (
       DELETE FROM ${nodes} WHERE ended_at < clock_timestamp() - interval '1 day' RETURNING id
     ) SELECT count(*)::int AS pruned FROM pruned`,
  );
  return row?.pruned ?? 0;
}
