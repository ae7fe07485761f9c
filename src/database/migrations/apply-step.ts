import { rows, type Queryable, type Tables } from '../tables.js';
import type { MigrationStep } from './migration-step.js';

/** Name of the advisory lock held while a schema is migrated. */
export const migrationLock = ({ schema }: Tables) => `nestjs-bildad migrate ${schema}`;

/** 0 when nothing is installed. */
export async function installedVersion(db: Queryable, tables: Tables): Promise<number> {
  return (await installed(db, tables)).version;
}

/** The installed version, and the oldest version whose code may work with it: 0 and 0 when nothing is installed. */
export async function installed(
  db: Queryable,
  { schema, versions }: Tables,
): Promise<{ version: number; minReader: number }> {
  // Not to_regclass: its cache may miss a commit made just before we got the advisory lock. Reading the catalogs as
  // tables does not.
  const [found] = await rows<{ exists: boolean }>(
    db,
    `SELECT EXISTS (
       SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
       WHERE n.nspname = $1 AND c.relname = 'schema_versions'
     ) AS "exists"`,
    [schema],
  );
  if (!found?.exists) return { version: 0, minReader: 0 };
  const [row] = await rows<{ version: number; minReader: number }>(
    db,
    `SELECT coalesce(max(version), 0)::int AS version,
       coalesce(max(coalesce(min_reader, version)), 0)::int AS "minReader" FROM ${versions}`,
  );
  return row!;
}

/** Call it inside a transaction, so that a step is applied as a whole or not at all. */
export async function applyStep(db: Queryable, tables: Tables, step: MigrationStep): Promise<void> {
  if (step.version === 1) {
    // Not IF NOT EXISTS, which requires the right to create schemas even if the schema exists.
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
         min_reader integer,
         applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
       )`,
    );
  }
  for (const statement of step.statements(tables)) await db.query(statement);
  await db.query(`INSERT INTO ${tables.versions} (version, name, min_reader) VALUES ($1, $2, $3)`, [
    step.version,
    step.name,
    step.minReader ?? null,
  ]);
}
