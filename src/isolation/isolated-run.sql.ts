import type { RunFacts } from '../job/run-facts.js';
import { rows, type Queryable, type Tables } from '../database/tables.js';

/** Counts a crash of the run's host. @returns the crashes of the job so far */
export async function chargeCrash(
  db: Queryable,
  { entries }: Tables,
  { jobQueueEntryId, jobRunId }: RunFacts,
): Promise<number> {
  const [row] = await rows<{ crashes: number }>(
    db,
    `WITH charged AS (
       UPDATE ${entries} SET crashes = crashes + 1 WHERE id = $1 AND current_job_run_id = $2 RETURNING crashes
     ) SELECT crashes FROM charged`,
    [jobQueueEntryId, jobRunId],
  );
  return row?.crashes ?? 0;
}

/** Cancels the running statements of sessions with this name. @returns their number */
export async function cancelSession(db: Queryable, name: string): Promise<number> {
  const [row] = await rows<{ cancelled: number }>(
    db,
    `SELECT count(pg_cancel_backend(pid))::int AS cancelled FROM pg_stat_activity
     WHERE application_name = $1 AND datname = current_database() AND usename = current_user
       AND state = 'active' AND pid <> pg_backend_pid()`,
    [name],
  );
  return row?.cancelled ?? 0;
}

/** Connections that the server allows for users who are not superusers. */
export async function connectionLimit(db: Queryable): Promise<number> {
  const [row] = await rows<{ limit: number }>(
    db,
    `SELECT current_setting('max_connections')::int
       - current_setting('superuser_reserved_connections')::int AS limit`,
    [],
  );
  return row!.limit;
}
