import type { Tables } from '../../tables.js';
import { LONGEST_MS } from './claim-jobs.js';

/**
 * Ends runs, and removes or reopens their entries. An end lands only if its run is still RUNNING, and
 * touches the entry only if that run is the entry's current one.
 *
 * An array that is NULL stands for its usual value in every end: the runs succeeded, without output,
 * their entries go. One text of ids comes back for each fate (`ended_ids` is NULL when all entries were
 * removed) instead of a row for each end: joining the common table expressions to make such rows grew
 * with the square of the batch (64 µs an end in batches of 1,000, against 22).
 *
 * Where an end does not land, its entry may be left over: somebody deleted the run, or edited it by
 * hand. Then it is reopened.
 */
export const endFunction = ({ entries, runs, end }: Tables) => `
CREATE FUNCTION ${end} (
  run_ids bigint[], entry_ids bigint[], failed boolean[], reasons text[], errors jsonb, outputs jsonb,
  reopen boolean[], delays_ms float8[], uncounted boolean[], only_if_expired boolean[],
  OUT ended_ids text, OUT removed_ids text, OUT reopened_ids text
) LANGUAGE plpgsql
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $end$
DECLARE
  moment timestamptz := clock_timestamp();
  landed integer;
BEGIN
  -- Most batches are of this kind, and without the arrays take 4 microseconds less per run.
  IF failed IS NULL AND outputs IS NULL AND reopen IS NULL AND only_if_expired IS NULL AND reasons IS NULL AND errors IS NULL THEN
    WITH ended AS (
      UPDATE ${runs} r SET status = 'DONE', ended_at = moment, updated_at = moment, result = 'SUCCEEDED'
      WHERE r.id = ANY (run_ids) AND r.status = 'RUNNING'
      RETURNING r.id, r.job_queue_entry_id
    ), gone AS (
      DELETE FROM ${entries} e USING ended
      WHERE e.id = ended.job_queue_entry_id AND e.current_job_run_id = ended.id
      RETURNING ended.id
    )
    SELECT CASE WHEN n.removed < cardinality(run_ids) THEN coalesce((SELECT string_agg(id::text, ',') FROM ended), '') END,
           CASE WHEN n.removed < cardinality(run_ids) THEN (SELECT string_agg(id::text, ',') FROM gone) END,
           (SELECT count(*) FROM ended)
    FROM (SELECT count(*) AS removed FROM gone) n
    INTO ended_ids, removed_ids, landed;
  ELSE
    WITH ended AS (
      UPDATE ${runs} r SET status = 'DONE', ended_at = moment, updated_at = moment,
        result = CASE WHEN i.failed THEN 'FAILED' ELSE 'SUCCEEDED' END, reason = i.reason,
        error = nullif(errors -> (i.ord - 1)::int, 'null'), output = nullif(outputs -> (i.ord - 1)::int, 'null')
      FROM unnest(run_ids, failed, reasons, reopen, delays_ms, uncounted, only_if_expired) WITH ORDINALITY
        AS i (run_id, failed, reason, reopen, delay_ms, uncounted, only_if_expired, ord)
      WHERE r.id = i.run_id AND r.status = 'RUNNING' AND (i.only_if_expired IS NOT TRUE OR r.expires_at <= moment)
      RETURNING r.id, r.job_queue_entry_id, i.delay_ms, i.uncounted,
        i.reopen IS TRUE AND r.kill_requested IS DISTINCT FROM 'cancelled' AS reopen
    ), removed AS (
      DELETE FROM ${entries} e USING ended
      WHERE NOT ended.reopen AND e.id = ended.job_queue_entry_id AND e.current_job_run_id = ended.id
      RETURNING ended.id
    ), reopened AS (
      UPDATE ${entries} e SET status = 'AVAILABLE', run_at = moment + coalesce(ended.delay_ms, 0) * interval '1 ms',
        scheduled = coalesce(ended.delay_ms, 0) > 0 OR e.crashes > 0, updated_at = moment,
        uncounted_runs = e.uncounted_runs + CASE WHEN ended.uncounted THEN 1 ELSE 0 END
      FROM ended
      WHERE ended.reopen AND e.id = ended.job_queue_entry_id AND e.current_job_run_id = ended.id
      RETURNING ended.id
    )
    SELECT CASE WHEN n.removed < cardinality(run_ids) THEN coalesce((SELECT string_agg(id::text, ',') FROM ended), '') END,
           CASE WHEN n.removed < cardinality(run_ids) THEN (SELECT string_agg(id::text, ',') FROM removed) END,
           (SELECT string_agg(id::text, ',') FROM reopened), (SELECT count(*) FROM ended)
    FROM (SELECT count(*) AS removed FROM removed) n
    INTO ended_ids, removed_ids, reopened_ids, landed;
  END IF;
  IF landed < cardinality(run_ids) THEN
    UPDATE ${entries} e SET status = 'AVAILABLE', scheduled = e.crashes > 0, updated_at = moment
    FROM unnest(run_ids, entry_ids) AS i (run_id, entry_id)
    WHERE e.id = i.entry_id AND e.status = 'RUNNING' AND e.current_job_run_id = i.run_id AND e.claimed_by IS NULL
      AND NOT EXISTS (SELECT FROM ${runs} r WHERE r.id = i.run_id AND r.status = 'RUNNING');
  END IF;
END $end$`;

/**
 * Ends runs that succeeded and whose rows were deferred: the entries go, the rows are written, DONE. An end
 * lands only if the entry's current run is this run, RUNNING, and its row is not written yet.
 *
 * `ended_ids` is NULL when all of them landed. unique_violation when a row of that identifier and number is
 * there already: then nothing is changed.
 */
export const endDeferredFunction = ({ entries, runs, endDeferred }: Tables) => `
CREATE FUNCTION ${endDeferred} (entry_ids bigint[], run_ids bigint[], outputs jsonb, OUT ended_ids text)
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
