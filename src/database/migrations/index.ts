import type { MigrationInterface, QueryRunner } from 'typeorm';
import { BildadConfigError } from '../../job/errors.js';
import { DEFAULT_SCHEMA, readSchemaName } from '../../options/settings.js';
import { tablesOf } from '../tables.js';
import { baseline } from './baseline/index.js';
import { applyStep, installedVersion, migrationLock } from './apply-step.js';
import type { MigrationStep } from './migration-step.js';

export const STEPS: readonly MigrationStep[] = [baseline];

/** The schema version that this package works with. */
export const SCHEMA_VERSION = STEPS.length;

export type MigrationClass = new () => MigrationInterface;

/**
 * The steps as TypeORM migrations, for hosts that run migrations themselves (and set `migrate: false`). They and the
 * module's own runner record versions in the same table, so either may run first.
 */
export function bildadMigrations(schema = DEFAULT_SCHEMA): MigrationClass[] {
  const tables = tablesOf(readSchemaName(schema));
  const label = schema.replace(/(^|_)([a-z0-9])/g, (_all, _bar, first: string) =>
    first.toUpperCase(),
  );
  return STEPS.map(
    (step) =>
      class implements MigrationInterface {
        readonly name = `${label}${step.name}${step.timestamp}`;

        async up(runner: QueryRunner): Promise<void> {
          // TypeORM runs migrations without a lock of its own.
          await runner.query('SELECT pg_advisory_xact_lock(hashtextextended($1, 0))', [
            migrationLock(tables),
          ]);
          if ((await installedVersion(runner, tables)) < step.version)
            await applyStep(runner, tables, step);
        }

        down(): Promise<void> {
          return Promise.reject(
            new BildadConfigError('migration', 'cannot be reverted: restore a backup instead'),
          );
        }
      },
  );
}

/** For hosts with the default schema that run migrations themselves. */
export const BILDAD_MIGRATIONS = bildadMigrations();
