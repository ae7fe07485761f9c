import { rows, type Queryable, type Tables } from '../database/tables.js';

/** Entries of one template that are due, and that nobody can run. */
export interface UnrunnableJobs {
  /** Of the template. */
  code: string;
  /** Whether the template is active: then no living node has a handler for it. */
  active: boolean;
  count: number;
  oldestDueAt: Date;
}

/**
 * What is due for longer than this, of templates that are inactive or that no living node has a handler for, by code.
 * Templates and nodes are few: where each template has a node, that is all it reads: 0.06 ms with a million waiting
 * entries. Where one has none, it counts among all entries: 0.24 s (docs/plans.md).
 */
export function unrunnableJobs(
  db: Queryable,
  { entries, templates, nodes }: Tables,
  olderThanMs: number,
): Promise<UnrunnableJobs[]> {
  return rows(
    db,
    `WITH idle AS MATERIALIZED (
       SELECT t.id, t.code, t.active FROM ${templates} t
       WHERE NOT t.active OR NOT EXISTS (
         SELECT FROM ${nodes} n
         WHERE n.ended_at IS NULL AND n.expires_at > clock_timestamp() AND t.code = ANY (n.template_codes))
     )
     SELECT idle.code, idle.active, count(*)::int AS count, min(e.run_at) AS "oldestDueAt"
     FROM idle JOIN ${entries} e ON e.job_template_id = idle.id
     WHERE e.status = 'AVAILABLE' AND e.run_at <= clock_timestamp() - $1::float8 * interval '1 ms'
     GROUP BY idle.code, idle.active ORDER BY idle.code`,
    [olderThanMs],
  );
}

/** Takes the look for them, for one node of an engine at a time. @returns whether the last one was so long ago */
export async function takeAlarm(
  db: Queryable,
  { configs }: Tables,
  name: string,
  everyMs: number,
): Promise<boolean> {
  const taken = await rows(
    db,
    `WITH taken AS (
       UPDATE ${configs} SET alarmed_at = clock_timestamp()
       WHERE name = $1 AND alarmed_at <= clock_timestamp() - $2::float8 * interval '1 ms' RETURNING name
     ) SELECT name FROM taken`,
    [name, everyMs],
  );
  return taken.length > 0;
}
