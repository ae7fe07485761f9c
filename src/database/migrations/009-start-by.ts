import type { MigrationStep } from './step.js';

/**
 * What jobs may carry that few do. The index names no column that a claim writes, or claims would not be HOT updates
 * any more; the entries that it holds are those that may be missed, and those of them that were started in time.
 */
export const startBy: MigrationStep = {
  version: 9,
  name: 'StartBy',
  timestamp: 1_765_300_000_000,
  minReader: 5,
  statements: ({ entries, runs, templates }) => [
    `ALTER TABLE ${entries} ADD COLUMN IF NOT EXISTS start_before timestamptz`,
    `CREATE INDEX IF NOT EXISTS job_queue_entries_start_before ON ${entries} (start_before)
       WHERE start_before IS NOT NULL`,
    `ALTER TABLE ${runs} ADD COLUMN IF NOT EXISTS retried_at timestamptz`,
    `ALTER TABLE ${templates} ADD COLUMN IF NOT EXISTS encrypt boolean NOT NULL DEFAULT false,
       ADD COLUMN IF NOT EXISTS context_version integer NOT NULL DEFAULT 0`,
  ],
};
