import { asRun, runColumns } from '../database/columns.js';
import type { JobRun } from '../database/entities/index.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';
import type { JobQueueStatus, JobRunResult, JobRunStatus } from '../job/status.js';

/** `queued`, or the newest run of the job; null: it has neither. */
export type JobState = 'queued' | JobRun | null;

/** One statement is enough: the statement that ends the last run deletes the entry, so a job is queued or has ended. */
export async function jobStates(
  db: Queryable,
  { entries, runs }: Tables,
  identifiers: string[],
): Promise<JobState[]> {
  const found = await rows<{ ord: number; queued: boolean; id: string | null }>(
    db,
    `SELECT i.ord::int, i.queued, r.* FROM (
       SELECT ord, identifier, EXISTS (SELECT FROM ${entries} e WHERE e.job_run_identifier = identifier) AS queued
       FROM unnest($1::text[]) WITH ORDINALITY AS wanted (identifier, ord)
     ) i LEFT JOIN LATERAL (
       SELECT ${runColumns('r')} FROM ${runs} r
       WHERE r.job_run_identifier = i.identifier AND NOT i.queued ORDER BY r.retry DESC LIMIT 1
     ) r ON true ORDER BY i.ord`,
    [identifiers],
  );
  return found.map(({ ord: _ord, queued, ...run }) => {
    if (queued) return 'queued';
    return run.id === null ? null : asRun(run);
  });
}

/** The position of a watcher in a job. */
export interface WatchedFrom {
  identifier: string;
  /** The first run to read. Null: only the newest. */
  retry: number | null;
  /** The number of the last output item that was seen of that run. */
  seq: number;
}

export interface WatchedRun {
  id: string;
  retry: number;
  status: JobRunStatus;
  result: JobRunResult | null;
  reason: string | null;
  startedAt: string | null;
  endedAt: string | null;
  /** JSON. */
  progress: string | null;
  progressAt: string | null;
  /** Lists of output items in order, each as JSON. */
  output: string[] | null;
}

export interface WatchedState {
  entry: {
    status: JobQueueStatus;
    retry: number;
    /** Milliseconds since 1970. Text would not do: east of UTC the end of 9999 has a year of five digits, which Date rejects. */
    runAtMs: number;
    runId: string | null;
  } | null;
  /** In order. */
  runs: WatchedRun[];
  /** There are more runs: the next read has them. */
  more: boolean;
}

const RUNS_AT_ONCE = 20;

/**
 * Reads the changes of jobs since a watcher's position, in one statement. Uses the unique indexes of entries
 * (identifier), runs (identifier, retry) and notes (run, kind, seq): 0.1 ms a job. The entry has the facts of a late run row.
 */
export async function watchedStates(
  db: Queryable,
  { entries, runs, notes }: Tables,
  watched: WatchedFrom[],
): Promise<WatchedState[]> {
  const found = await rows<{
    entry: WatchedState['entry'];
    runs: WatchedRun[] | null;
  }>(
    db,
    `SELECT e.row AS entry, r.rows AS runs
     FROM unnest($1::text[], $2::int[], $3::int[]) WITH ORDINALITY AS a (identifier, retry, seq, ord)
     LEFT JOIN LATERAL (
       SELECT json_build_object('status', e.status, 'retry', e.retry, 'runAtMs', date_part('epoch', e.run_at) * 1000, 'runId', e.current_job_run_id::text) AS row,
         e.status, e.retry, e.current_job_run_id
       FROM ${entries} e WHERE e.job_run_identifier = a.identifier
     ) e ON true
     LEFT JOIN LATERAL (
       SELECT json_agg(json_build_object(
         'id', r.id::text, 'retry', r.retry, 'status', r.status, 'result', r.result, 'reason', r.reason,
         'startedAt', r.started_at, 'endedAt', r.ended_at, 'progress', p.value, 'progressAt', p.at, 'output', o.lists
       ) ORDER BY r.retry) AS rows
       FROM (
         (SELECT id, retry, status, result, reason, started_at, ended_at FROM ${runs}
          WHERE job_run_identifier = a.identifier AND (retry >= a.retry OR a.retry IS NULL)
          ORDER BY CASE WHEN a.retry IS NULL THEN -retry ELSE retry END
          LIMIT CASE WHEN a.retry IS NULL THEN 1 ELSE ${RUNS_AT_ONCE + 1} END)
         UNION ALL
         SELECT e.current_job_run_id, e.retry - 1, 'RUNNING', NULL, NULL, NULL, NULL
         WHERE e.status = 'RUNNING' AND NOT EXISTS (SELECT FROM ${runs} d WHERE d.id = e.current_job_run_id)
       ) r
       LEFT JOIN ${notes} p ON p.job_run_id = r.id AND p.kind = 'progress' AND p.seq = 0
       LEFT JOIN LATERAL (
         SELECT json_agg(n.value ORDER BY n.seq) AS lists FROM ${notes} n
         WHERE n.job_run_id = r.id AND n.kind = 'output' AND n.seq > CASE WHEN r.retry = a.retry THEN a.seq ELSE 0 END
       ) o ON true
     ) r ON true ORDER BY a.ord`,
    [
      watched.map(({ identifier }) => identifier),
      watched.map(({ retry }) => retry),
      watched.map(({ seq }) => seq),
    ],
  );
  return found.map(({ entry, runs }) => ({
    entry,
    runs: runs?.slice(0, RUNS_AT_ONCE) ?? [],
    more: (runs?.length ?? 0) > RUNS_AT_ONCE,
  }));
}
