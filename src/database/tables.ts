/** The quoted names of one schema's tables. The schema's name was checked by `readSchemaName`. */
export interface Tables {
  schema: string;
  configs: string;
  templates: string;
  entries: string;
  runs: string;
  nodes: string;
  /** What jobs were enqueued under, and which of them hold it. */
  keys: string;
  /** What handlers said of their runs. */
  notes: string;
  /** The sequence of the runs' ids. */
  runIds: string;
  versions: string;
  /** Functions. `pick` is what a claim that steps over taken run numbers looks with. */
  pick: string;
  /** What 0.2 claims with. */
  claimByRow: string;
  claim: string;
  end: string;
  endDeferred: string;
  enqueue: string;
  enqueueKeyed: string;
  keyFreeAt: string;
  advanceKeys: string;
  pruneKeys: string;
}

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
    pick: named('pick_job_queue_entries'),
    claimByRow: named('claim_job_queue_entries'),
    claim: named('claim_jobs'),
    end: named('end_job_runs'),
    endDeferred: named('end_deferred_job_runs'),
    enqueue: named('enqueue_jobs'),
    enqueueKeyed: named('enqueue_keyed_job'),
    keyFreeAt: named('job_key_free_at'),
    advanceKeys: named('advance_job_keys'),
    pruneKeys: named('prune_job_keys'),
  };
}

/** What runs a statement: a DataSource, or the EntityManager of a transaction. */
export interface Queryable {
  query(sql: string, parameters?: unknown[]): Promise<any>;
}

/**
 * JSON texts as one parameter. As elements of a jsonb[] each would be escaped by the driver, which takes
 * up to half a second per megabyte and blocks the event loop.
 */
export const jsonList = (texts: (string | null)[]) =>
  `[${texts.map((text) => text ?? 'null').join(',')}]`;

/** The same where there is one, NULL where there is none. */
export const jsonOrNull = (texts: (string | null)[]) =>
  texts.some((text) => text !== null) ? jsonList(texts) : null;

/** A PostgreSQL array of texts that need no quoting (ids, numbers, booleans), for which the driver's way takes longer than the statement. */
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
