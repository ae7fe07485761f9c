/** The quoted names of one schema's tables. The schema's name was checked by `readSchemaName`. */
export interface Tables extends Record<keyof typeof FUNCTIONS, string> {
  schema: string;
  configs: string;
  templates: string;
  entries: string;
  runs: string;
  nodes: string;
  /** Unique, debounce and throttle keys, with the jobs that hold them. */
  keys: string;
  /** Progress, state and log lines of runs. */
  notes: string;
  /** The sequence of the runs' ids. */
  runIds: string;
  versions: string;
}

export const FUNCTIONS = {
  claim: 'claim_jobs',
  writeLateRows: 'write_late_run_rows',
  finishRuns: 'finish_job_runs',
  finishMissed: 'finish_missed_jobs',
  enqueue: 'enqueue_jobs',
  enqueueKeyed: 'enqueue_keyed_job',
  keyFreeAt: 'job_key_free_at',
  advanceKeys: 'advance_job_keys',
  pruneKeys: 'prune_job_keys',
} as const;

export function tablesOf(schema: string): Tables {
  const named = (table: string) => `"${schema}"."${table}"`;
  return {
    schema,
    configs: named('job_configs'),
    templates: named('job_templates'),
    entries: named('job_queue_entries'),
    runs: named('job_runs'),
    nodes: named('job_nodes'),
    keys: named('job_keys'),
    notes: named('job_run_notes'),
    runIds: named('job_runs_id_seq'),
    versions: named('schema_versions'),
    ...(Object.fromEntries(
      Object.entries(FUNCTIONS).map(([key, name]) => [key, named(name)]),
    ) as Record<keyof typeof FUNCTIONS, string>),
  };
}

/** Runs statements: a DataSource, the EntityManager of a transaction, the engine's pool. */
export interface Queryable {
  query(sql: string, parameters?: unknown[]): Promise<any>;
}

/**
 * JSON texts as one parameter. As elements of a jsonb[] each would be escaped by the driver, which takes
 * up to half a second per megabyte and blocks the event loop.
 */
export const jsonList = (texts: (string | null)[]) =>
  `[${texts.map((text) => text ?? 'null').join(',')}]`;

/** Like `jsonList`, or null if every text is null. */
export const jsonOrNull = (texts: (string | null)[]) =>
  texts.some((text) => text !== null) ? jsonList(texts) : null;

/** A PostgreSQL array of values that need no quoting (ids, numbers, booleans). The driver's conversion takes longer than the statement. */
export const plainArray = (values: readonly (string | number | boolean | null)[]) =>
  `{${values.map((value) => value ?? 'NULL').join(',')}}`;

/**
 * Every statement of the store ends in a SELECT, whose rows TypeORM returns as they are
 * (an UPDATE ... RETURNING would come back as a pair of rows and count).
 */
export async function rows<T = object>(
  db: Queryable,
  sql: string,
  parameters: unknown[] = [],
): Promise<T[]> {
  return (await db.query(sql, parameters)) as T[];
}
