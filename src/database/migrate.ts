import { setTimeout as pause } from 'node:timers/promises';
import type { DataSource } from 'typeorm';
import { BildadDatabaseError, SchemaVersionError } from '../job/errors.js';
import { databaseCode } from './database-error.js';
import { applyStep, installed, installedVersion, migrationLock } from './migrations/apply-step.js';
import { SCHEMA_VERSION, STEPS } from './migrations/index.js';
import { rows, type Queryable, type Tables } from './tables.js';

/** While DDL waits for a lock, later statements wait behind it. It gives up before that matters. */
const LOCK_TIMEOUT_MS = 250;
/** lock_not_available, deadlock_detected; unique_violation, duplicate_schema, duplicate_table: another process has just created it. */
const RETRYABLE = ['55P03', '40P01', '23505', '42P06', '42P07'];

/**
 * Brings the tables to this package's version. Safe when many processes start at once: one works
 * under a transaction-level advisory lock (PgBouncer may sit in between), the others wait for the
 * version to change.
 * @throws SchemaVersionError when the database is so new that the package cannot work with it
 */
export async function migrate(
  dataSource: DataSource,
  tables: Tables,
  timeoutMs = 60_000,
): Promise<void> {
  const giveUpAt = performance.now() + timeoutMs;
  while ((await installedVersion(dataSource, tables)) < SCHEMA_VERSION) {
    if (await upgrade(dataSource, tables)) continue;
    if (performance.now() > giveUpAt)
      throw new BildadDatabaseError(
        `schema "${tables.schema}" could not be upgraded within ${timeoutMs} ms: another session holds a lock on it`,
        '55P03',
      );
    await pause(50 + Math.random() * 100);
  }
  await checkVersion(dataSource, tables);
}

/** @throws SchemaVersionError when the tables are older than this package's, or so new that it cannot work with them */
export async function checkVersion(dataSource: Queryable, tables: Tables): Promise<void> {
  const { version, minReader } = await installed(dataSource, tables);
  if (version < SCHEMA_VERSION || minReader > SCHEMA_VERSION)
    throw new SchemaVersionError(tables.schema, version, SCHEMA_VERSION);
}

/** @returns false if another session migrates, or holds a lock */
async function upgrade(dataSource: DataSource, tables: Tables): Promise<boolean> {
  try {
    return await dataSource.transaction(async (manager) => {
      await manager.query(`SET LOCAL lock_timeout = ${LOCK_TIMEOUT_MS}`);
      const [lock] = await rows<{ mine: boolean }>(
        manager,
        'SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0)) AS mine',
        [migrationLock(tables)],
      );
      if (!lock?.mine) return false;
      const next = STEPS[await installedVersion(manager, tables)];
      if (next) await applyStep(manager, tables, next);
      return true;
    });
  } catch (error) {
    if (RETRYABLE.includes(databaseCode(error) ?? '')) return false;
    throw error;
  }
}
