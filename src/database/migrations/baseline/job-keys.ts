import type { Tables } from '../../tables.js';

/** The `run_at` of an entry that waits until the holder of its key has left the queue: later than any due time. */
export const WAITS_FOR_KEY = '9999-12-31T23:59:59.999Z';

/** Plans that use the indexes even with old statistics. */
export const INDEX_PLANS = `SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off`;

/** The runs of the job that holds a key. An identifier is free again once its runs are deleted. */
const runsOf = (runs: string) =>
  `FROM ${runs} r WHERE r.job_run_identifier = key_row.job_run_identifier AND r.job_queue_entry_id = key_row.job_queue_entry_id`;

/**
 * When a key is free: infinity while its job waits, or is in the queue; -infinity if the job was removed before it ran,
 * or its runs were deleted.
 */
export const freeAtFunction = ({ entries, runs, keys, keyFreeAt }: Tables) => `
CREATE FUNCTION ${keyFreeAt} (key_row ${keys}) RETURNS timestamptz
LANGUAGE plpgsql ${INDEX_PLANS}
AS $free$
DECLARE
  holder ${entries};
  since timestamptz;
BEGIN
  SELECT * INTO holder FROM ${entries} e WHERE e.id = key_row.job_queue_entry_id;
  IF key_row.kind = 'throttle' THEN
    IF holder.id IS NOT NULL OR EXISTS (SELECT ${runsOf(runs)}) THEN since := key_row.first_at; END IF;
  ELSIF key_row.until_started THEN
    IF holder.status = 'AVAILABLE' AND holder.retry = 0 THEN RETURN 'infinity'; END IF;
    SELECT min(r.started_at) INTO since ${runsOf(runs)};
    since := coalesce(since, holder.claimed_at);
  ELSIF holder.id IS NOT NULL THEN
    RETURN 'infinity';
  ELSE
    SELECT max(r.ended_at) INTO since ${runsOf(runs)};
  END IF;
  RETURN coalesce(since + key_row.within_ms * interval '1 ms', '-infinity');
END $free$`;

/** Passes a key whose job has left the queue to the waiting entry, and makes that entry due. The key's row is locked. */
export const advanceOne = ({ entries, keys, keyFreeAt }: Tables) => `
  UPDATE ${entries} e SET run_at = due.at, scheduled = e.crashes > 0 OR due.at > clock_timestamp(), updated_at = clock_timestamp()
  FROM (SELECT greatest(key_row.next_at, ${keyFreeAt} (key_row)) AS at) due
  WHERE e.id = key_row.next_entry_id AND e.status = 'AVAILABLE' AND e.run_at = '${WAITS_FOR_KEY}';
  UPDATE ${keys} k SET job_queue_entry_id = key_row.next_entry_id, job_run_identifier = key_row.next_identifier,
    first_at = clock_timestamp(), next_entry_id = NULL, next_identifier = NULL, next_at = NULL
  WHERE (k.job_template_id, k.kind, k.key) = (key_row.job_template_id, key_row.kind, key_row.key)
  RETURNING * INTO key_row;`;

export const advanceFunction = (tables: Tables) => `
CREATE FUNCTION ${tables.advanceKeys} (max_rows integer, OUT advanced integer)
LANGUAGE plpgsql ${INDEX_PLANS}
AS $advance$
DECLARE
  key_row ${tables.keys};
BEGIN
  advanced := 0;
  FOR key_row IN
    SELECT * FROM ${tables.keys} k
    WHERE k.next_entry_id IS NOT NULL AND NOT EXISTS (SELECT FROM ${tables.entries} e WHERE e.id = k.job_queue_entry_id)
    LIMIT max_rows FOR UPDATE SKIP LOCKED
  LOOP
    -- The key may have another holder since the SELECT began.
    CONTINUE WHEN EXISTS (SELECT FROM ${tables.entries} e WHERE e.id = key_row.job_queue_entry_id);
    -- Another transaction may have locked the waiting entry: a later pass starts it.
    PERFORM FROM ${tables.entries} e WHERE e.id = key_row.next_entry_id FOR NO KEY UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND AND EXISTS (SELECT FROM ${tables.entries} e WHERE e.id = key_row.next_entry_id);
${advanceOne(tables)}
    advanced := advanced + 1;
  END LOOP;
END $advance$`;

/** Deletes the rows of keys that no job holds. @returns how many rows it examined */
export const pruneFunction = ({ entries, keys, keyFreeAt, pruneKeys }: Tables) => `
CREATE FUNCTION ${pruneKeys} (max_rows integer, OUT examined integer)
LANGUAGE plpgsql ${INDEX_PLANS}
AS $prune$
DECLARE
  key_row ${keys};
  free_at timestamptz;
  -- With the volatile function itself, each call would read the whole index.
  moment timestamptz := clock_timestamp();
BEGIN
  examined := 0;
  FOR key_row IN
    SELECT * FROM ${keys} k WHERE k.check_at <= moment ORDER BY k.check_at LIMIT max_rows FOR UPDATE SKIP LOCKED
  LOOP
    examined := examined + 1;
    free_at := ${keyFreeAt} (key_row);
    IF free_at <= clock_timestamp() AND key_row.next_entry_id IS NULL
      AND NOT EXISTS (SELECT FROM ${entries} e WHERE e.id = key_row.job_queue_entry_id) THEN
      DELETE FROM ${keys} k WHERE (k.job_template_id, k.kind, k.key) = (key_row.job_template_id, key_row.kind, key_row.key);
    ELSE
      UPDATE ${keys} k SET check_at = greatest(clock_timestamp() + interval '1 hour', nullif(free_at, 'infinity'))
      WHERE (k.job_template_id, k.kind, k.key) = (key_row.job_template_id, key_row.kind, key_row.key);
    END IF;
  END LOOP;
END $prune$`;
