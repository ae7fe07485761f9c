import type { JobQueueStatus } from '../job/status.js';
import { asRun, runColumns } from '../database/columns.js';
import type { JobRun } from '../database/entities/index.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';

/** Omitted fields do not restrict the result. */
export interface RowFilter {
  templateCode?: string;
  identifiers?: string[];
  olderThanMs?: number;
  newerThanMs?: number;
}

export interface EntryFilter extends RowFilter {
  status?: JobQueueStatus;
  minPriority?: number;
  maxPriority?: number;
}

export interface RunFilter extends RowFilter {
  reason?: string;
}

/** The ids of matching entries after `afterId`, in their order. */
export async function matchingEntries(
  db: Queryable,
  { entries, templates }: Tables,
  filter: EntryFilter,
  afterId: string,
  limit: number,
): Promise<string[]> {
  const found = await rows<{ id: string }>(
    db,
    `SELECT e.id::text FROM ${entries} e
     WHERE e.id > $1 AND ${commonConditions('e', templates, 'e.inserted_at')}
       AND ($7::text IS NULL OR e.status = $7)
       AND e.priority BETWEEN coalesce($8::int, e.priority) AND coalesce($9::int, e.priority)
     ORDER BY e.id LIMIT $2`,
    [
      afterId,
      limit,
      ...commonValues(filter),
      filter.status ?? null,
      filter.minPriority ?? null,
      filter.maxPriority ?? null,
    ],
  );
  return found.map(({ id }) => id);
}

/**
 * The last runs of jobs that have failed, in their order, after `afterId` and up to `lastId`. Excludes runs that were
 * retried by hand. Reads the history.
 */
export async function failedRuns(
  db: Queryable,
  { entries, runs, templates }: Tables,
  filter: RunFilter,
  afterId: string,
  lastId: string,
  limit: number,
): Promise<JobRun[]> {
  const found = await rows(
    db,
    `SELECT ${runColumns('r')} FROM ${runs} r
     WHERE r.id > $1 AND r.id <= $8 AND ${commonConditions('r', templates, 'r.ended_at')}
       AND ($7::text IS NULL OR r.reason = $7) AND r.status = 'DONE' AND r.result = 'FAILED' AND r.retried_at IS NULL
       AND NOT EXISTS (SELECT FROM ${runs} later
                       WHERE later.job_run_identifier = r.job_run_identifier AND later.retry > r.retry)
       AND NOT EXISTS (SELECT FROM ${entries} e WHERE e.job_run_identifier = r.job_run_identifier)
     ORDER BY r.id LIMIT $2`,
    [afterId, limit, ...commonValues(filter), filter.reason ?? null, lastId],
  );
  return found.map(asRun);
}

/** '0' if there is no run. */
export async function newestRunId(db: Queryable, { runs }: Tables): Promise<string> {
  const [row] = await rows<{ id: string }>(
    db,
    `SELECT coalesce(max(id), 0)::text AS id FROM ${runs}`,
  );
  return row!.id;
}

const commonConditions = (row: string, templates: string, since: string) =>
  `($3::text IS NULL OR ${row}.job_template_id = (SELECT id FROM ${templates} WHERE code = $3))
       AND ($4::text[] IS NULL OR ${row}.job_run_identifier = ANY ($4))
       AND ($5::float8 IS NULL OR ${since} <= clock_timestamp() - $5 * interval '1 ms')
       AND ($6::float8 IS NULL OR ${since} > clock_timestamp() - $6 * interval '1 ms')`;

const commonValues = (filter: RowFilter) => [
  filter.templateCode ?? null,
  filter.identifiers ?? null,
  filter.olderThanMs ?? null,
  filter.newerThanMs ?? null,
];
