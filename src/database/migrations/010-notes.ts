import { grantAsOn } from './004-nodes/index.js';
import type { MigrationStep } from './step.js';

/**
 * What handlers say while they run, apart from the runs: what claims and ends jobs does not know of it, and what deletes
 * runs does not wait for it. So there is no foreign key; a sweep takes away what is of runs that are gone.
 *
 * `kind`: `progress`, the last one; `log`, the lines of a run that is over; `tape`, a piece of what is said to those who
 * watch, `seq` its last number. `value` is JSON as text: jsonb would refuse what a handler may say. Progress is written
 * again and again, so the index names no column that this changes.
 */
export const notes: MigrationStep = {
  version: 10,
  name: 'Notes',
  timestamp: 1_765_400_000_000,
  minReader: 5,
  statements: (tables) => [
    `CREATE TABLE ${tables.notes} (
      job_run_id bigint NOT NULL,
      kind text NOT NULL CHECK (kind IN ('progress', 'log', 'tape')),
      seq integer NOT NULL DEFAULT 0,
      value text NOT NULL,
      at timestamptz NOT NULL DEFAULT clock_timestamp(),
      keep_until timestamptz NOT NULL,
      PRIMARY KEY (job_run_id, kind, seq)
    ) WITH (fillfactor = 80)`,
    `CREATE INDEX job_run_notes_keep_until ON ${tables.notes} (keep_until)`,
    grantAsOn(tables.runs, tables.notes),
  ],
};
