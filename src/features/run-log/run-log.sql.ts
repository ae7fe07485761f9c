import { rows, type Queryable, type Tables } from '../../database/tables.js';

/** A row of what the handler of a run reported. */
export interface RunNote {
  jobRunId: string;
  kind: 'progress' | 'log' | 'output';
  /** For output the number of the last item in `value`, else 0. */
  seq: number;
  /** JSON. */
  value: string;
  keepMs: number;
  /** Rows of the run's output with a lower number are deleted. */
  outputFrom?: number;
}

/**
 * Writes the rows of many runs with one statement. Values are texts in one JSON parameter, whatever they contain. An
 * existing row keeps its `keep_until`, so that a new value of progress is a HOT update. Of two notes for one row the
 * last is written.
 */
export async function writeNotes(
  db: Queryable,
  { notes }: Tables,
  written: RunNote[],
): Promise<void> {
  // PostgreSQL refuses a statement that writes a row twice.
  const byRow = new Map(written.map((note) => [`${note.jobRunId} ${note.kind} ${note.seq}`, note]));
  await rows(
    db,
    `WITH given AS MATERIALIZED (
       SELECT * FROM json_to_recordset($1::json)
         AS n (run bigint, kind text, seq integer, value text, keep float8, "from" integer)
     ), outdated AS (
       DELETE FROM ${notes} t USING given
       WHERE given."from" IS NOT NULL AND t.job_run_id = given.run AND t.kind = 'output' AND t.seq < given."from"
     ), written AS (
       INSERT INTO ${notes} AS t (job_run_id, kind, seq, value, keep_until)
       SELECT run, kind, seq, value, clock_timestamp() + keep * interval '1 ms' FROM given ORDER BY run, kind, seq
       ON CONFLICT (job_run_id, kind, seq) DO UPDATE SET value = excluded.value, at = clock_timestamp()
     ) SELECT`,
    [
      JSON.stringify(
        Array.from(byRow.values(), ({ jobRunId, kind, seq, value, keepMs, outputFrom }) => ({
          run: jobRunId,
          kind,
          seq,
          value,
          keep: keepMs,
          from: outputFrom,
        })),
      ),
    ],
  );
}

export interface ReadNote {
  jobRunId: string;
  retry: number;
  value: string;
  at: Date;
}

/** The notes of one kind of all runs of a job, the first run first. */
export function notesOfJob(
  db: Queryable,
  { notes, runs, entries }: Tables,
  kind: 'progress' | 'log',
  jobRunIdentifier: string,
): Promise<ReadNote[]> {
  // The row of a RUNNING run may be late: its entry says the same.
  return rows(
    db,
    `SELECT r.id::text AS "jobRunId", r.retry, n.value, n.at FROM (
       SELECT id, retry FROM ${runs} WHERE job_run_identifier = $1
       UNION SELECT current_job_run_id, retry - 1 FROM ${entries}
       WHERE job_run_identifier = $1 AND status = 'RUNNING'
     ) r JOIN ${notes} n ON n.job_run_id = r.id AND n.kind = $2 ORDER BY r.retry`,
    [jobRunIdentifier, kind],
  );
}

/** The notes of one kind of a run. */
export function notesOfRun(
  db: Queryable,
  { notes, runs }: Tables,
  kind: 'progress' | 'log',
  jobRunId: string,
): Promise<ReadNote[]> {
  return rows(
    db,
    `SELECT r.id::text AS "jobRunId", r.retry, n.value, n.at
     FROM ${runs} r JOIN ${notes} n ON n.job_run_id = r.id AND n.kind = $2 WHERE r.id = $1::bigint`,
    [jobRunId, kind],
  );
}

/**
 * Deletes notes past their `keep_until`. The time as a subquery is a condition of the index: with 100,000 notes to keep
 * and none to delete 0.01 ms, without it 14 ms (EXPLAIN ANALYZE). @returns the number of deleted notes
 */
export async function pruneNotes(db: Queryable, { notes }: Tables, limit: number): Promise<number> {
  const [row] = await rows<{ pruned: number }>(
    db,
    `WITH expired AS MATERIALIZED (
       SELECT job_run_id, kind, seq FROM ${notes} WHERE keep_until <= (SELECT clock_timestamp())
       ORDER BY keep_until LIMIT $1 FOR UPDATE SKIP LOCKED
     ), pruned AS (
       DELETE FROM ${notes} n USING expired
       WHERE (n.job_run_id, n.kind, n.seq) = (expired.job_run_id, expired.kind, expired.seq) RETURNING 1
     ) SELECT count(*)::int AS pruned FROM pruned`,
    [limit],
  );
  return row?.pruned ?? 0;
}

/**
 * Checks notes in the order of their runs and deletes those whose run does not exist, after an hour: the row of a run
 * may be written late. @returns the run to continue after, null at the end
 */
export async function pruneOrphanedNotes(
  db: Queryable,
  { notes, runs }: Tables,
  afterRunId: string,
  limit: number,
): Promise<string | null> {
  const [row] = await rows<{ checked: number; last: string | null }>(
    db,
    `WITH checked AS MATERIALIZED (
       SELECT job_run_id, kind, seq, at FROM ${notes} WHERE job_run_id > $1::bigint ORDER BY job_run_id LIMIT $2
     ), pruned AS (
       DELETE FROM ${notes} n USING checked
       WHERE n.job_run_id = checked.job_run_id AND n.kind = checked.kind AND n.seq = checked.seq
         AND checked.at < clock_timestamp() - interval '1 hour'
         AND NOT EXISTS (SELECT FROM ${runs} r WHERE r.id = checked.job_run_id)
     ) SELECT count(*)::int AS checked, max(job_run_id)::text AS last FROM checked`,
    [afterRunId, limit],
  );
  return row && row.checked === limit ? row.last : null;
}
