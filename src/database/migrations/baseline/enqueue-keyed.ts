import type { Tables } from '../../tables.js';
import { advanceOne, WAITS_FOR_KEY, INDEX_PLANS } from './job-keys.js';

/**
 * Inserts a job under a key, or applies the key's terms if another job holds it. The key's row is locked first, so that
 * one of many callers works on it at a time. A waiting entry that holds the key is locked too: it does not start
 * before this transaction has ended.
 *
 * `outcome`: 'added', with the new entry; 'changed' and 'taken', with the entry that holds the key, as it is now; 'refused',
 * without an entry, as in `enqueue_jobs`. The entry of a job that has left the queue is assembled from its last run,
 * with the status DONE, which no row has.
 *
 * @param lock_wait_ms the lock_timeout of this call; NULL in a caller's transaction, which has its own
 * @param doubt_ms an attempt of the last `doubt_ms`, whose answer was lost, may have inserted the job
 */
export const enqueueKeyedFunction = (tables: Tables) => {
  const { entries, runs, keys, keyFreeAt, enqueueKeyed } = tables;
  return `
CREATE FUNCTION ${enqueueKeyed} (
  key_kind text, key_name text, new_template bigint, new_identifier text, new_named boolean,
  new_priority integer, new_timeout_ms bigint, new_retries integer, new_context jsonb, new_backoff jsonb,
  new_run_at timestamptz, new_delay_ms float8, new_retry_of bigint, new_retry_once boolean,
  new_until_started boolean, new_within_ms float8, on_conflict text, max_wait_ms float8,
  lock_wait_ms integer, doubt_ms float8
) RETURNS TABLE (outcome text, entry ${entries})
LANGUAGE plpgsql ROWS 1 ${INDEX_PLANS}
AS $enqueue$
#variable_conflict use_column
DECLARE
  key_row ${keys};
  holder ${entries};
  last ${runs};
  moment timestamptz;
  due timestamptz;
  free_at timestamptz;
  waiting boolean;
  waits_for_holder boolean := false;
  added text;
BEGIN
  IF lock_wait_ms IS NOT NULL THEN PERFORM set_config('lock_timeout', lock_wait_ms::text, true); END IF;
  INSERT INTO ${keys} AS k (job_template_id, kind, key) VALUES (new_template, key_kind, key_name)
  ON CONFLICT (job_template_id, kind, key) DO UPDATE SET check_at = k.check_at
  RETURNING k.* INTO key_row;
  moment := clock_timestamp();
  due := coalesce(new_run_at, moment + new_delay_ms * interval '1 ms');
${findLostAttempt(tables)}
  WHILE key_row.job_queue_entry_id IS NOT NULL LOOP
    SELECT * INTO holder FROM ${entries} e WHERE e.id = key_row.job_queue_entry_id AND e.status = 'AVAILABLE' FOR NO KEY UPDATE;
    waiting := FOUND;
    IF NOT waiting THEN
      SELECT * INTO holder FROM ${entries} e WHERE e.id = key_row.job_queue_entry_id;
      -- It was reopened in between.
      CONTINUE WHEN holder.status = 'AVAILABLE';
      IF holder.id IS NULL AND key_row.next_entry_id IS NOT NULL THEN
${advanceOne(tables)}
        CONTINUE;
      END IF;
    END IF;
    free_at := ${keyFreeAt} (key_row);
    EXIT WHEN free_at <= moment;
    IF on_conflict = 'keepLatest' AND key_row.next_entry_id IS NOT NULL THEN
      UPDATE ${entries} e SET ${REPLACEMENT}, updated_at = moment
      WHERE e.id = key_row.next_entry_id AND e.status = 'AVAILABLE' RETURNING e.* INTO entry;
      IF FOUND THEN
        outcome := 'changed';
        RETURN NEXT; RETURN;
      END IF;
    END IF;
    IF waiting AND free_at = 'infinity' AND on_conflict = 'reschedule' THEN
      due := CASE WHEN holder.retry > 0 THEN greatest(holder.run_at, due) ELSE due END;
      UPDATE ${entries} e SET run_at = due, scheduled = e.crashes > 0 OR due > moment, updated_at = moment
      WHERE e.id = holder.id RETURNING e.* INTO entry;
      outcome := 'changed';
      RETURN NEXT; RETURN;
    ELSIF waiting AND free_at = 'infinity' AND on_conflict IN ('replace', 'keepLatest', 'debounce') THEN
      due := CASE WHEN on_conflict = 'keepLatest' THEN holder.run_at
                  WHEN on_conflict = 'debounce' THEN least(due, key_row.first_at + max_wait_ms * interval '1 ms')
                  WHEN holder.retry > 0 THEN greatest(holder.run_at, due) ELSE due END;
      UPDATE ${entries} e SET ${REPLACEMENT}, run_at = due, scheduled = e.crashes > 0 OR due > moment, updated_at = moment
      WHERE e.id = holder.id RETURNING e.* INTO entry;
      UPDATE ${keys} k SET until_started = new_until_started, within_ms = new_within_ms WHERE ${THIS_KEY};
      outcome := 'changed';
      RETURN NEXT; RETURN;
    ELSIF on_conflict = 'keepLatest' AND free_at = 'infinity' THEN
      waits_for_holder := true;
      EXIT;
    ELSIF on_conflict = 'keepLatest' THEN
      due := greatest(due, free_at);
      EXIT;
    END IF;
    outcome := 'taken';
    IF holder.id IS NULL THEN
      SELECT r.* INTO last FROM ${runs} r
      WHERE r.job_run_identifier = key_row.job_run_identifier AND r.job_queue_entry_id = key_row.job_queue_entry_id ORDER BY r.retry DESC LIMIT 1;
${DONE_HOLDER}
    END IF;
    entry := holder;
    RETURN NEXT; RETURN;
  END LOOP;

  SELECT ids INTO added FROM ${tables.enqueue} (
    ARRAY[new_identifier], ARRAY[new_template], ARRAY[new_named], ARRAY[new_priority], ARRAY[new_timeout_ms],
    ARRAY[new_retries], jsonb_build_array(new_context), CASE WHEN new_backoff IS NOT NULL THEN jsonb_build_array(new_backoff) END,
    ARRAY[CASE WHEN waits_for_holder THEN '${WAITS_FOR_KEY}' WHEN new_run_at IS NOT NULL OR due > moment THEN due END], ARRAY[0], NULL, NULL,
    CASE WHEN new_retry_of IS NOT NULL THEN ARRAY[new_retry_of] END, ARRAY[new_retry_once], NULL) AS e;
  IF coalesce(added, '') = '' THEN
    DELETE FROM ${keys} k WHERE ${THIS_KEY} AND k.job_queue_entry_id IS NULL;
    outcome := 'refused';
    RETURN NEXT; RETURN;
  END IF;
  IF waits_for_holder THEN
    UPDATE ${keys} k SET next_entry_id = added::bigint, next_identifier = new_identifier, next_at = due WHERE ${THIS_KEY};
  ELSE
    UPDATE ${keys} k SET job_queue_entry_id = added::bigint, job_run_identifier = new_identifier, first_at = moment,
      until_started = new_until_started, within_ms = new_within_ms
    WHERE ${THIS_KEY};
  END IF;
  SELECT e.* INTO entry FROM ${entries} e WHERE e.id = added::bigint;
  outcome := 'added';
  RETURN NEXT;
END $enqueue$`;
};

const THIS_KEY = `(k.job_template_id, k.kind, k.key) = (new_template, key_kind, key_name)`;

const REPLACEMENT = `job_context = new_context, priority = new_priority, timeout_ms = new_timeout_ms,
        max_retries = new_retries, backoff = new_backoff`;

/** Unknown columns have the values of this call. */
const DONE_HOLDER = `      holder.id := key_row.job_queue_entry_id;
      holder.job_template_id := key_row.job_template_id;
      holder.job_run_identifier := key_row.job_run_identifier;
      holder.status := 'DONE';
      holder.priority := new_priority;
      holder.timeout_ms := new_timeout_ms;
      holder.max_retries := new_retries;
      holder.backoff := new_backoff;
      holder.job_context := last.job_context;
      holder.run_at := last.available_at;
      holder.scheduled := false;
      holder.retry := last.retry + 1;
      holder.uncounted_runs := 0;
      holder.crashes := 0;
      holder.current_job_run_id := last.id;
      holder.inserted_at := key_row.first_at;
      holder.updated_at := last.updated_at;`;

/** The entry of an attempt whose answer was lost, queued or run since. */
const findLostAttempt = ({ entries, runs, keys }: Tables) => `
  IF doubt_ms IS NOT NULL THEN
    SELECT e.* INTO holder FROM ${entries} e
    WHERE e.job_run_identifier = new_identifier AND e.job_template_id = new_template
      AND e.inserted_at >= moment - doubt_ms * interval '1 ms';
    IF NOT FOUND THEN
      SELECT r.* INTO last FROM ${runs} r
      WHERE r.job_run_identifier = new_identifier AND r.job_template_id = new_template ORDER BY r.retry DESC LIMIT 1;
      IF last.id IS NOT NULL AND (SELECT min(r.inserted_at) FROM ${runs} r WHERE r.job_run_identifier = new_identifier)
          >= moment - doubt_ms * interval '1 ms' THEN
        key_row.job_queue_entry_id := last.job_queue_entry_id;
        key_row.job_run_identifier := new_identifier;
${DONE_HOLDER}
      END IF;
    END IF;
    IF holder.id IS NOT NULL THEN
      DELETE FROM ${keys} k WHERE ${THIS_KEY} AND k.job_queue_entry_id IS NULL;
      outcome := 'added';
      entry := holder;
      RETURN NEXT; RETURN;
    END IF;
  END IF;`;
