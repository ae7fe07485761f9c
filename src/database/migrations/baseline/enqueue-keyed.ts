import type { Tables } from '../../tables.js';
import { advanceOne, KEPT_BACK, PLANNED } from './job-keys.js';

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
  asked_kind text, asked_key text, asked_template bigint, asked_identifier text, asked_named boolean,
  asked_priority integer, asked_timeout_ms bigint, asked_retries integer, asked_context jsonb, asked_backoff jsonb,
  asked_run_at timestamptz, asked_delay_ms float8, asked_retry_of bigint, asked_retry_once boolean,
  asked_until_started boolean, asked_within_ms float8, on_conflict text, max_wait_ms float8,
  lock_wait_ms integer, doubt_ms float8
) RETURNS TABLE (outcome text, entry ${entries})
LANGUAGE plpgsql ROWS 1 ${PLANNED}
AS $enqueue$
#variable_conflict use_column
DECLARE
  held ${keys};
  holder ${entries};
  last ${runs};
  moment timestamptz;
  due timestamptz;
  free_at timestamptz;
  waiting boolean;
  behind boolean := false;
  added text;
BEGIN
  IF lock_wait_ms IS NOT NULL THEN PERFORM set_config('lock_timeout', lock_wait_ms::text, true); END IF;
  INSERT INTO ${keys} AS k (job_template_id, kind, key) VALUES (asked_template, asked_kind, asked_key)
  ON CONFLICT (job_template_id, kind, key) DO UPDATE SET look_at = k.look_at
  RETURNING k.* INTO held;
  moment := clock_timestamp();
  due := coalesce(asked_run_at, moment + asked_delay_ms * interval '1 ms');
${found(tables)}
  WHILE held.job_queue_entry_id IS NOT NULL LOOP
    SELECT * INTO holder FROM ${entries} e WHERE e.id = held.job_queue_entry_id AND e.status = 'AVAILABLE' FOR NO KEY UPDATE;
    waiting := FOUND;
    IF NOT waiting THEN
      SELECT * INTO holder FROM ${entries} e WHERE e.id = held.job_queue_entry_id;
      -- It was reopened in between.
      CONTINUE WHEN holder.status = 'AVAILABLE';
      IF holder.id IS NULL AND held.next_entry_id IS NOT NULL THEN
${advanceOne(tables)}
        CONTINUE;
      END IF;
    END IF;
    free_at := ${keyFreeAt} (held);
    EXIT WHEN free_at <= moment;
    IF on_conflict = 'keepLatest' AND held.next_entry_id IS NOT NULL THEN
      UPDATE ${entries} e SET ${REPLACED}, updated_at = moment
      WHERE e.id = held.next_entry_id AND e.status = 'AVAILABLE' RETURNING e.* INTO entry;
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
                  WHEN on_conflict = 'debounce' THEN least(due, held.first_at + max_wait_ms * interval '1 ms')
                  WHEN holder.retry > 0 THEN greatest(holder.run_at, due) ELSE due END;
      UPDATE ${entries} e SET ${REPLACED}, run_at = due, scheduled = e.crashes > 0 OR due > moment, updated_at = moment
      WHERE e.id = holder.id RETURNING e.* INTO entry;
      UPDATE ${keys} k SET until_started = asked_until_started, within_ms = asked_within_ms WHERE ${THIS_KEY};
      outcome := 'changed';
      RETURN NEXT; RETURN;
    ELSIF on_conflict = 'keepLatest' AND free_at = 'infinity' THEN
      behind := true;
      EXIT;
    ELSIF on_conflict = 'keepLatest' THEN
      due := greatest(due, free_at);
      EXIT;
    END IF;
    outcome := 'taken';
    IF holder.id IS NULL THEN
      SELECT r.* INTO last FROM ${runs} r
      WHERE r.job_run_identifier = held.job_run_identifier AND r.job_queue_entry_id = held.job_queue_entry_id ORDER BY r.retry DESC LIMIT 1;
${DONE}
    END IF;
    entry := holder;
    RETURN NEXT; RETURN;
  END LOOP;

  SELECT ids INTO added FROM ${tables.enqueue} (
    ARRAY[asked_identifier], ARRAY[asked_template], ARRAY[asked_named], ARRAY[asked_priority], ARRAY[asked_timeout_ms],
    ARRAY[asked_retries], jsonb_build_array(asked_context), CASE WHEN asked_backoff IS NOT NULL THEN jsonb_build_array(asked_backoff) END,
    ARRAY[CASE WHEN behind THEN '${KEPT_BACK}' WHEN asked_run_at IS NOT NULL OR due > moment THEN due END], ARRAY[0], NULL, NULL,
    CASE WHEN asked_retry_of IS NOT NULL THEN ARRAY[asked_retry_of] END, ARRAY[asked_retry_once], NULL) AS e;
  IF coalesce(added, '') = '' THEN
    DELETE FROM ${keys} k WHERE ${THIS_KEY} AND k.job_queue_entry_id IS NULL;
    outcome := 'refused';
    RETURN NEXT; RETURN;
  END IF;
  IF behind THEN
    UPDATE ${keys} k SET next_entry_id = added::bigint, next_identifier = asked_identifier, next_at = due WHERE ${THIS_KEY};
  ELSE
    UPDATE ${keys} k SET job_queue_entry_id = added::bigint, job_run_identifier = asked_identifier, first_at = moment,
      until_started = asked_until_started, within_ms = asked_within_ms
    WHERE ${THIS_KEY};
  END IF;
  SELECT e.* INTO entry FROM ${entries} e WHERE e.id = added::bigint;
  outcome := 'added';
  RETURN NEXT;
END $enqueue$`;
};

const THIS_KEY = `(k.job_template_id, k.kind, k.key) = (asked_template, asked_kind, asked_key)`;

const REPLACED = `job_context = asked_context, priority = asked_priority, timeout_ms = asked_timeout_ms,
        max_retries = asked_retries, backoff = asked_backoff`;

/** Unknown columns have the values of this call. */
const DONE = `      holder.id := held.job_queue_entry_id;
      holder.job_template_id := held.job_template_id;
      holder.job_run_identifier := held.job_run_identifier;
      holder.status := 'DONE';
      holder.priority := asked_priority;
      holder.timeout_ms := asked_timeout_ms;
      holder.max_retries := asked_retries;
      holder.backoff := asked_backoff;
      holder.job_context := last.job_context;
      holder.run_at := last.available_at;
      holder.scheduled := false;
      holder.retry := last.retry + 1;
      holder.uncounted_runs := 0;
      holder.crashes := 0;
      holder.current_job_run_id := last.id;
      holder.inserted_at := held.first_at;
      holder.updated_at := last.updated_at;`;

/** The entry of an attempt whose answer was lost, queued or run since. */
const found = ({ entries, runs, keys }: Tables) => `
  IF doubt_ms IS NOT NULL THEN
    SELECT e.* INTO holder FROM ${entries} e
    WHERE e.job_run_identifier = asked_identifier AND e.job_template_id = asked_template
      AND e.inserted_at >= moment - doubt_ms * interval '1 ms';
    IF NOT FOUND THEN
      SELECT r.* INTO last FROM ${runs} r
      WHERE r.job_run_identifier = asked_identifier AND r.job_template_id = asked_template ORDER BY r.retry DESC LIMIT 1;
      IF last.id IS NOT NULL AND (SELECT min(r.inserted_at) FROM ${runs} r WHERE r.job_run_identifier = asked_identifier)
          >= moment - doubt_ms * interval '1 ms' THEN
        held.job_queue_entry_id := last.job_queue_entry_id;
        held.job_run_identifier := asked_identifier;
${DONE}
      END IF;
    END IF;
    IF holder.id IS NOT NULL THEN
      DELETE FROM ${keys} k WHERE ${THIS_KEY} AND k.job_queue_entry_id IS NULL;
      outcome := 'added';
      entry := holder;
      RETURN NEXT; RETURN;
    END IF;
  END IF;`;
