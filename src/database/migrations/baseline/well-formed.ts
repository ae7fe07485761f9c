/**
 * The rules that every entry of the engine fulfils beyond its column types: [condition, problem].
 * Numbers stay below their maximum because a claim adds one. An identifier has at most 500 characters of at most 4 bytes;
 * 2,700 would fit into the queue's index, and not into the history's.
 */
const RULES: readonly [condition: string, problem: string][] = [
  ['timeout_ms > 0', 'timeout_ms is out of range'],
  ['max_retries >= 0', 'max_retries is out of range'],
  ['retry BETWEEN 0 AND 2000000000', 'retry is out of range'],
  ['uncounted_runs BETWEEN 0 AND 2000000000', 'uncounted_runs is out of range'],
  ['crashes BETWEEN 0 AND 2000000000', 'crashes is out of range'],
  ['octet_length(job_run_identifier) <= 2000', 'its identifier is too long'],
  ['isfinite(run_at)', 'run_at is infinite'],
  [
    'num_nulls(claimed_by, claimed_at, claim_expires_at) IN (0, 3)',
    'only a part of claimed_by, claimed_at and claim_expires_at is set',
  ],
  [
    '(claimed_by IS NULL OR current_job_run_id IS NOT NULL)',
    'it is claimed, and current_job_run_id is not set',
  ],
];

/** A condition on a row of job_queue_entries. */
export const WELL_FORMED = RULES.map(([condition]) => condition).join(' AND ');

/** SQL: the text of the first rule that a row breaks, without any of its values; NULL if it breaks none. */
export const PROBLEM = `CASE ${RULES.map(
  ([condition, problem]) => `WHEN NOT (${condition}) THEN '${problem}'`,
).join(' ')} END`;
