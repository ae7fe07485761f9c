import type { MigrationInterface, QueryRunner } from 'typeorm';
import { BildadConfigError } from '../../job/errors.js';
import { DEFAULT_SCHEMA, readSchemaName } from '../../options/settings.js';
import { tablesOf } from '../tables.js';
import { initial } from './001-initial.js';
import { hotPath } from './002-hot-path/index.js';
import { claimsByKind } from './003-claims-by-kind.js';
import { nodes } from './004-nodes/index.js';
import { quarantine } from './005-quarantine/index.js';
import { claimClock } from './006-claim-clock.js';
import { processes } from './007-processes.js';
import { identity } from './008-identity/index.js';
import { startBy } from './009-start-by.js';
import { notes } from './010-notes.js';
import { applyStep, installedVersion, migrationLock } from './apply.js';
import type { MigrationStep } from './step.js';

export const STEPS: readonly MigrationStep[] = [
  initial,
  hotPath,
  claimsByKind,
  nodes,
  quarantine,
  claimClock,
  processes,
  identity,
  startBy,
  notes,
];

/** The version of the tables that this package works with. */
export const SCHEMA_VERSION = STEPS.length;

export type MigrationClass = new () => MigrationInterface;

/**
 * The steps as TypeORM migrations, for hosts that run migrations themselves (and set
 * `migrate: false`): they and the module's own runner know of one another's work.
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
            new BildadConfigError(
              'migration',
              'to go forward only; restore a backup to go back',
              'revert',
            ),
          );
        }
      },
  );
}

/** For hosts with the default schema that run migrations themselves. */
export const BILDAD_MIGRATIONS = bildadMigrations();
