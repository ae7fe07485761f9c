import { KEPT_BACK } from '../../database/migrations/baseline/job-keys.js';
import type { Tables } from '../../database/tables.js';

/** Whether an entry that is AVAILABLE again is no ordinary claim's: not due yet, or aboard a node that was lost. */
export const outOfReady = (entry: string) =>
  `(${entry}.crashes > 0 OR ${entry}.run_at > clock_timestamp())`;

/**
 * When it is due. One that was kept for later and started by hand all the same has had its turn if no key keeps it any more:
 * nothing else would make it due. The key is locked for its turn not to come meanwhile.
 */
export const dueAgainAt = ({ keys }: Tables, entry: string) =>
  `CASE WHEN ${entry}.run_at = '${KEPT_BACK}' AND NOT EXISTS (
             SELECT FROM ${keys} k WHERE k.job_template_id = ${entry}.job_template_id AND k.next_entry_id = ${entry}.id FOR UPDATE)
           THEN clock_timestamp() ELSE ${entry}.run_at END`;
