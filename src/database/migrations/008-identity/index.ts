import { grantAsOn } from '../004-nodes/index.js';
import type { MigrationStep } from '../step.js';
import { enqueueKeyedFunction } from './enqueue.js';
import { advanceFunction, freeAtFunction, pruneFunction } from './keys.js';

/**
 * A row for each key that a job was enqueued under, so that of many callers one adds the job. It names the job that holds
 * the key, and on what terms; whether that job still waits, runs, or is over is looked up by who asks for the key next. So
 * claims and ends know nothing of keys, and nodes of before work on the same tables.
 *
 * `next_*` is a job that is kept until the holder has left the queue. `look_at` is when it is worth looking whether the
 * row says anything any more; who has none to say is deleted.
 */
export const identity: MigrationStep = {
  version: 8,
  name: 'Identity',
  timestamp: 1_765_200_000_000,
  minReader: 5,
  statements: (tables) => [
    `CREATE TABLE ${tables.keys} (
      job_template_id bigint NOT NULL,
      kind text NOT NULL CHECK (kind IN ('unique', 'debounce', 'throttle')),
      key text NOT NULL,
      job_queue_entry_id bigint,
      job_run_identifier text,
      until_started boolean NOT NULL DEFAULT false,
      within_ms float8,
      first_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      next_entry_id bigint,
      next_identifier text,
      next_at timestamptz,
      look_at timestamptz NOT NULL DEFAULT clock_timestamp() + interval '10 minutes',
      PRIMARY KEY (job_template_id, kind, key)
    ) WITH (fillfactor = 70)`,
    `CREATE INDEX job_keys_look_at ON ${tables.keys} (look_at)`,
    `CREATE INDEX job_keys_next ON ${tables.keys} (job_template_id, kind, key) WHERE next_entry_id IS NOT NULL`,
    grantAsOn(tables.runs, tables.keys),
    freeAtFunction(tables),
    advanceFunction(tables),
    pruneFunction(tables),
    enqueueKeyedFunction(tables),
  ],
};
