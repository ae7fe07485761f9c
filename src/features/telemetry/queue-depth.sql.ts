import { rows, type Queryable, type Tables } from '../../database/tables.js';

/** The queue entries of one template. */
export interface QueueDepth {
  code: string;
  due: number;
  scheduled: number;
  running: number;
  quarantined: number;
  /** How long its oldest due job has been waiting, in milliseconds; null: none is due. */
  oldestMs: number | null;
}

/**
 * One row for each template, also without entries. Reads all entries (0.5 s per million), so
 * callers must throttle it.
 */
export function queueDepths(db: Queryable, { entries, templates }: Tables): Promise<QueueDepth[]> {
  return rows(
    db,
    `WITH counted AS (
       SELECT job_template_id AS id,
         count(*) FILTER (WHERE status = 'AVAILABLE' AND run_at <= statement_timestamp())::int AS due,
         count(*) FILTER (WHERE status = 'AVAILABLE' AND run_at > statement_timestamp())::int AS scheduled,
         count(*) FILTER (WHERE status = 'RUNNING')::int AS running,
         count(*) FILTER (WHERE status = 'QUARANTINED')::int AS quarantined,
         date_part('epoch', statement_timestamp() -
           min(run_at) FILTER (WHERE status = 'AVAILABLE' AND run_at <= statement_timestamp())) * 1000 AS "oldestMs"
       FROM ${entries} GROUP BY job_template_id
     )
     SELECT t.code, coalesce(due, 0) AS due, coalesce(scheduled, 0) AS scheduled, coalesce(running, 0) AS running,
       coalesce(quarantined, 0) AS quarantined, "oldestMs"
     FROM ${templates} t LEFT JOIN counted c ON c.id = t.id ORDER BY t.code`,
  );
}

/** The job that would be claimed next. */
export interface QueueHead {
  code: string;
  jobRunIdentifier: string;
  dueAt: Date;
  /** Milliseconds since it was due, by the database's clock. */
  waitedMs: number;
}

/**
 * The first due job in claim order that a live node can run; null: none is. It uses the ready
 * index: 0.08 ms with a million waiting jobs. It reads all jobs before it: 0.8 s, and up to 1.6 s
 * on a busy machine, with a million in front that no node can run (EXPLAIN ANALYZE, PostgreSQL 18
 * with default settings, two cores), so callers must throttle it.
 */
export async function queueHead(
  db: Queryable,
  { entries, templates, nodes }: Tables,
): Promise<QueueHead | null> {
  const [head] = await rows<QueueHead>(
    db,
    `SELECT t.code, e.job_run_identifier AS "jobRunIdentifier", e.run_at AS "dueAt",
       date_part('epoch', statement_timestamp() - e.run_at) * 1000 AS "waitedMs"
     FROM ${entries} e JOIN ${templates} t ON t.id = e.job_template_id
     WHERE e.id = (
       SELECT id FROM ${entries} WHERE status = 'AVAILABLE' AND NOT scheduled AND job_template_id = ANY (ARRAY(
         SELECT t.id FROM ${templates} t WHERE t.active AND EXISTS (
           SELECT FROM ${nodes} n
           WHERE n.ended_at IS NULL AND n.expires_at > clock_timestamp() AND t.code = ANY (n.template_codes))))
       ORDER BY priority, id LIMIT 1)`,
  );
  return head ?? null;
}
