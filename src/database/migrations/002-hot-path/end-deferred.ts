import type { Tables } from '../../tables.js';
import { LONGEST_MS } from './claim.js';

/**
 * Ends runs that succeeded and whose rows were deferred: the entries go, the rows are written, DONE. An end
 * lands only if the entry's current run is this run, RUNNING, and its row is not written yet.
 *
 * `ended_ids` is NULL when all of them landed. unique_violation when a row of that identifier and number is
 * there already: then nothing is changed.
 */
export const endDeferredFunction = ({ entries, runs, endDeferred }: Tables) => `
CREATE OR REPLACE FUNCTION ${endDeferred} (entry_ids bigint[], run_ids bigint[], outputs jsonb, OUT ended_ids text)
LANGUAGE plpgsql
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $end$
DECLARE
  moment timestamptz := clock_timestamp();
BEGIN
  WITH gone AS (
    DELETE FROM ${entries} e USING unnest(entry_ids, run_ids) WITH ORDINALITY AS i (entry_id, run_id, ord)
    WHERE e.id = i.entry_id AND e.current_job_run_id = i.run_id AND e.status = 'RUNNING' AND e.claimed_by IS NOT NULL
    RETURNING e.*, i.ord
  ), written AS (
    INSERT INTO ${runs} (id, job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
                         status, result, output, job_context, available_at, started_at, timeout_at, expires_at, ended_at,
                         inserted_at, updated_at)
    SELECT e.current_job_run_id, e.job_template_id, e.id, e.job_run_identifier, e.retry - 1,
           e.job_run_identifier || '#' || (e.retry - 1), e.claimed_by, 'DONE', 'SUCCEEDED',
           nullif(outputs -> (e.ord - 1)::int, 'null'), e.job_context, e.run_at, e.claimed_at,
           e.claimed_at + least(e.timeout_ms, ${LONGEST_MS}) * interval '1 ms', e.claim_expires_at, moment,
           e.claimed_at, moment
    FROM gone e
  )
  SELECT CASE WHEN count(*) < cardinality(run_ids) THEN coalesce(string_agg(e.current_job_run_id::text, ','), '') END
  INTO ended_ids FROM gone e;
END $end$`;
