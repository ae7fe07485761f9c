import { WELL_FORMED } from './well-formed.js';
import type { MigrationStep } from '../step.js';

/**
 * A row that a hand in the database has spoiled is put aside, and can no longer be made.
 *
 * The constraints are NOT VALID: a table that holds such rows already is upgraded all the same, and none of its
 * rows is read. From here on an update of one is refused, which is how a claim finds it, but for the one that puts
 * it aside. The index names no column that a claim writes, or claims would not be HOT updates any more.
 *
 * `min_reader` is the oldest version of the package's tables whose code may go on with those of a step. It is NULL
 * where that is the step's own version.
 */
export const quarantine: MigrationStep = {
  version: 5,
  name: 'Quarantine',
  timestamp: 1_764_900_000_000,
  statements: ({ configs, entries, versions }) => [
    `ALTER TABLE ${entries} ADD COLUMN IF NOT EXISTS quarantined_at timestamptz,
       ADD COLUMN IF NOT EXISTS quarantine_reason text`,
    // In the two below, which let a row be put aside whatever is in it.
    `ALTER TABLE ${entries} DROP CONSTRAINT IF EXISTS job_queue_entries_status_check,
       DROP CONSTRAINT IF EXISTS job_queue_entries_timeout_ms_check,
       DROP CONSTRAINT IF EXISTS job_queue_entries_max_retries_check,
       DROP CONSTRAINT IF EXISTS job_queue_entries_retry_check,
       DROP CONSTRAINT IF EXISTS job_queue_entries_uncounted_runs_check`,
    `ALTER TABLE ${entries} ADD CONSTRAINT job_queue_entries_status_check
       CHECK (status IN ('AVAILABLE', 'RUNNING', 'QUARANTINED')) NOT VALID`,
    `ALTER TABLE ${entries} ADD CONSTRAINT job_queue_entries_well_formed
       CHECK (status = 'QUARANTINED' OR (${WELL_FORMED})) NOT VALID`,
    `CREATE INDEX IF NOT EXISTS job_queue_entries_quarantined ON ${entries} (id) WHERE quarantined_at IS NOT NULL`,
    // When an engine last looked for jobs that nobody can run.
    `ALTER TABLE ${configs} ADD COLUMN IF NOT EXISTS alarmed_at timestamptz NOT NULL DEFAULT '-infinity'`,
    `ALTER TABLE ${versions} ADD COLUMN IF NOT EXISTS min_reader integer`,
  ],
};
