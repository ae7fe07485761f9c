import { rows, type Queryable, type Tables } from '../tables.js';
import type { MigrationStep } from './step.js';

/** The advisory lock, by name, that whoever migrates a schema holds. */
export const migrationLock = ({ schema }: Tables) =>
  `nestjs-bildad migrate ${schema}`;

/** 0 when nothing is installed. */
export async function installedVersion(
  db: Queryable,
  { schema, versions }: Tables,
): Promise<number> {
  // Not to_regclass: inside a transaction it may answer from the session's cache, as things were before the lock was granted.
  const [found] = await rows<{ exists: boolean }>(
    db,
    `SELECT EXISTS (
       SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
       WHERE n.nspname = $1 AND c.relname = 'schema_versions') AS "exists"`,
    [schema],
  );
  if (!found?.exists) return 0;
  const [row] = await rows<{ version: number }>(
    db,
    `SELECT coalesce(max(version), 0)::int AS version FROM ${versions}`,
  );
  return row?.version ?? 0;
}

/** To be called inside a transaction, so that a step is done or not done. */
export async function applyStep(
  db: Queryable,
  tables: Tables,
  step: MigrationStep,
): Promise<void> {
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
  await db.query(
    `INSERT INTO ${tables.versions} (version, name) VALUES ($1, $2)`,
    [step.version, step.name],
  );
}
