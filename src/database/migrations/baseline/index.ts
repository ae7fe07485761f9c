import { FUNCTIONS, type Tables } from '../../tables.js';
import type { MigrationStep } from '../migration-step.js';
import { claimFunction } from './claim-jobs.js';
import { enqueueFunction } from './enqueue-jobs.js';
import { enqueueKeyedFunction } from './enqueue-keyed.js';
import { finishFunctions } from './finish-runs.js';
import { advanceFunction, freeAtFunction, pruneFunction } from './job-keys.js';
import { tableStatements } from './tables.js';

/** The whole schema. Until it is released it is edited in place; after that, changes are new steps. */
export const baseline: MigrationStep = {
  version: 1,
  name: 'Baseline',
  timestamp: 1_764_000_000_000,
  statements: (tables) => [
    ...tableStatements(tables),
    dropFunctions(tables),
    claimFunction(tables),
    ...finishFunctions(tables),
    enqueueFunction(tables),
    freeAtFunction(tables),
    advanceFunction(tables),
    pruneFunction(tables),
    enqueueKeyedFunction(tables),
  ],
};

/** Functions outlive tables that TypeORM's `dropSchema` or `schema:drop` removed, perhaps with other signatures. */
const dropFunctions = ({ schema }: Tables) => `DO $drop$
  DECLARE leftover record;
  BEGIN
    FOR leftover IN
      SELECT p.oid::regprocedure AS signature FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
      WHERE n.nspname = '${schema}' AND p.proname IN (${Object.values(FUNCTIONS)
        .map((name) => `'${name}'`)
        .join(', ')})
    LOOP
      EXECUTE format('DROP FUNCTION %s', leftover.signature);
    END LOOP;
  END $drop$`;
