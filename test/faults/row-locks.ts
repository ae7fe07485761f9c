import type pg from 'pg';
import type { RowLock } from './schedule.js';

/** What a transaction has locked: the checker expects no progress of it, and progress of everything else. */
export interface LockedRows {
  /** Identifiers of jobs. */
  jobs: string[];
  /** Codes of templates. */
  templates: string[];
  keys: string[];
}

const MOST_ROWS = 3;

const QUERIES: Readonly<Record<RowLock, { field: keyof LockedRows | null; sql: string }>> = {
  lockRuns: {
    field: 'jobs',
    sql: `SELECT job_run_identifier AS name FROM bildad.job_runs WHERE status = 'RUNNING'
      ORDER BY random() LIMIT ${MOST_ROWS} FOR UPDATE SKIP LOCKED`,
  },
  lockEntries: {
    field: 'jobs',
    sql: `SELECT job_run_identifier AS name FROM bildad.job_queue_entries
      ORDER BY status DESC, random() LIMIT ${MOST_ROWS} FOR UPDATE SKIP LOCKED`,
  },
  lockTemplates: {
    field: 'templates',
    sql: `SELECT code AS name FROM bildad.job_templates WHERE code <> 'OK'
      ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED`,
  },
  lockKeys: {
    field: 'keys',
    sql: 'SELECT key AS name FROM bildad.job_keys ORDER BY random() LIMIT 1 FOR UPDATE SKIP LOCKED',
  },
  lockNodes: {
    field: null,
    sql: 'SELECT id AS name FROM bildad.job_nodes WHERE pid = $1 AND ended_at IS NULL FOR UPDATE SKIP LOCKED',
  },
};

/** Locks a few rows until the session ends. @param pid of the process whose node is locked, for `lockNodes` */
export async function lockRows(
  client: pg.Client,
  kind: RowLock,
  pid?: number,
): Promise<LockedRows> {
  const { field, sql } = QUERIES[kind];
  await client.query('BEGIN');
  const { rows } = await client.query<{ name: string }>(sql, kind === 'lockNodes' ? [pid] : []);
  const locked: LockedRows = { jobs: [], templates: [], keys: [] };
  if (field) locked[field] = rows.map(({ name }) => name);
  return locked;
}
