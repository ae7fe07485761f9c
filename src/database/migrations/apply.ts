import { rows, type Queryable, type Tables } from '../tables.js';
import type { MigrationStep } from './step.js';

/** The advisory lock, by name, that whoever migrates a schema holds. */
export const migrationLock = ({ schema }: Tables) => `nestjs-bildad migrate ${schema}`;

/** 0 when nothing is installed. */
export async function installedVersion(db: Queryable, tables: Tables): Promise<number> {
  return (await installed(db, tables)).version;
}

/** What is installed, and the oldest version whose code may work with it: 0 and 0 when nothing is. */
export async function installed(
  db: Queryable,
  { schema, versions }: Tables,
): Promise<{ version: number; minReader: number }> {
  // Not to_regclass: it may answer from a cache that has not heard of what was committed just before
  // we got the advisory lock. Reading the catalogs as tables is up to date.
  const [found] = await rows<{ exists: boolean }>(
    db,
    `SELECT EXISTS (
       SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE n.nspname = $1 AND c.relname = 'schema_versions'
     ) AS "exists"`,
    [schema],
  );
  if (!found?.exists) return { version: 0, minReader: 0 };
  // As JSON: tables of before step 5 have no such column.
  const [row] = await rows<{ version: number; minReader: number }>(
    db,
    `SELECT coalesce(max(version), 0)::int AS version,
       coalesce(max(coalesce((to_jsonb(v) ->> 'min_reader')::int, version)), 0)::int AS "minReader" FROM ${versions} v`,
  );
  return row!;
}

/** To be called inside a transaction, so that a step is done or not done. */
export async function applyStep(db: Queryable, tables: Tables, step: MigrationStep): Promise<void> {
  if (step.version === 1) {
    // Not IF NOT EXISTS, which demands the right to create schemas even where nothing is to do.
    const [found] = await rows<{ exists: boolean }>(
      db,
      'SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1) AS "exists"',
      [tables.schema],
    );
    if (!found?.exists) await db.query(`CREATE SCHEMA "${tables.schema}"`);
    await db.query(
      `CREATE TABLE ${tables.versions} (
         version integer PRIMARY KEY,
         name text NOT NULL,
         applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
       )`,
    );
  }
  for (const statement of step.statements(tables)) await db.query(statement);
  if (step.minReader === undefined)
    await db.query(`INSERT INTO ${tables.versions} (version, name) VALUES ($1, $2)`, [
      step.version,
      step.name,
    ]);
  else
    await db.query(
      `INSERT INTO ${tables.versions} (version, name, min_reader) VALUES ($1, $2, $3)`,
      [step.version, step.name, step.minReader],
    );
}
