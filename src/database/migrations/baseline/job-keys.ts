import type { Tables } from '../../tables.js';

/** The `run_at` of an entry that waits until the holder of its key has left the queue: later than any due time. */
export const KEPT_BACK = '9999-12-31T23:59:59.999Z';

/** Plans use the indexes whatever the statistics say. */
export const PLANNED = `SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off`;

/** The runs of the job that holds a key. An identifier is free again once its runs are deleted. */
const runsOf = (runs: string) =>
  `FROM ${runs} r WHERE r.job_run_identifier = held.job_run_identifier AND r.job_queue_entry_id = held.job_queue_entry_id`;

/**
 * When a key is free: infinity while its job waits, or is in the queue; -infinity if the job was removed before it ran,
 * or its runs were deleted.
 */
export const freeAtFunction = ({ entries, runs, keys, keyFreeAt }: Tables) => `
CREATE FUNCTION ${keyFreeAt} (held ${keys}) RETURNS timestamptz
LANGUAGE plpgsql ${PLANNED}
AS $free$
DECLARE
  there ${entries};
  since timestamptz;
BEGIN
  SELECT * INTO there FROM ${entries} e WHERE e.id = held.job_queue_entry_id;
  IF held.kind = 'throttle' THEN
    IF there.id IS NOT NULL OR EXISTS (SELECT ${runsOf(runs)}) THEN since := held.first_at; END IF;
  ELSIF held.until_started THEN
    IF there.status = 'AVAILABLE' AND there.retry = 0 THEN RETURN 'infinity'; END IF;
    SELECT min(r.started_at) INTO since ${runsOf(runs)};
    since := coalesce(since, there.claimed_at);
  ELSIF there.id IS NOT NULL THEN
    RETURN 'infinity';
  ELSE
    SELECT max(r.ended_at) INTO since ${runsOf(runs)};
  END IF;
  RETURN coalesce(since + held.within_ms * interval '1 ms', '-infinity');
END $free$`;

/** Gives a key whose job has left the queue to the entry that waits for it, and makes that entry due. The key's row is locked. */
export const advanceOne = ({ entries, keys, keyFreeAt }: Tables) => `
  UPDATE ${entries} e SET run_at = turn.at, scheduled = e.crashes > 0 OR turn.at > clock_timestamp(), updated_at = clock_timestamp()
  FROM (SELECT greatest(held.next_at, ${keyFreeAt} (held)) AS at) turn
  WHERE e.id = held.next_entry_id AND e.status = 'AVAILABLE' AND e.run_at = '${KEPT_BACK}';
  UPDATE ${keys} k SET job_queue_entry_id = held.next_entry_id, job_run_identifier = held.next_identifier,
    first_at = clock_timestamp(), next_entry_id = NULL, next_identifier = NULL, next_at = NULL
  WHERE (k.job_template_id, k.kind, k.key) = (held.job_template_id, held.kind, held.key)
  RETURNING * INTO held;`;

export const advanceFunction = (tables: Tables) => `
CREATE FUNCTION ${tables.advanceKeys} (most integer, OUT advanced integer)
LANGUAGE plpgsql ${PLANNED}
AS $advance$
DECLARE
  held ${tables.keys};
BEGIN
  advanced := 0;
  FOR held IN
    SELECT * FROM ${tables.keys} k
    WHERE k.next_entry_id IS NOT NULL AND NOT EXISTS (SELECT FROM ${tables.entries} e WHERE e.id = k.job_queue_entry_id)
    LIMIT most FOR UPDATE SKIP LOCKED
  LOOP
    -- The key may have another holder since the SELECT began.
    CONTINUE WHEN EXISTS (SELECT FROM ${tables.entries} e WHERE e.id = held.job_queue_entry_id);
    -- Another transaction may have locked the waiting entry: a later pass starts it.
    PERFORM FROM ${tables.entries} e WHERE e.id = held.next_entry_id FOR NO KEY UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND AND EXISTS (SELECT FROM ${tables.entries} e WHERE e.id = held.next_entry_id);
${advanceOne(tables)}
    advanced := advanced + 1;
  END LOOP;
END $advance$`;

/** Deletes the rows of keys that no job holds. @returns how many rows it examined */
export const pruneFunction = ({ entries, keys, keyFreeAt, pruneKeys }: Tables) => `
CREATE FUNCTION ${pruneKeys} (most integer, OUT looked integer)
LANGUAGE plpgsql ${PLANNED}
AS $prune$
DECLARE
  held ${keys};
  free_at timestamptz;
  -- With the volatile function itself, each call would read the whole index.
  moment timestamptz := clock_timestamp();
BEGIN
  looked := 0;
  FOR held IN
    SELECT * FROM ${keys} k WHERE k.look_at <= moment ORDER BY k.look_at LIMIT most FOR UPDATE SKIP LOCKED
  LOOP
    looked := looked + 1;
    free_at := ${keyFreeAt} (held);
    IF free_at <= clock_timestamp() AND held.next_entry_id IS NULL
      AND NOT EXISTS (SELECT FROM ${entries} e WHERE e.id = held.job_queue_entry_id) THEN
      DELETE FROM ${keys} k WHERE (k.job_template_id, k.kind, k.key) = (held.job_template_id, held.kind, held.key);
    ELSE
      UPDATE ${keys} k SET look_at = greatest(clock_timestamp() + interval '1 hour', nullif(free_at, 'infinity'))
      WHERE (k.job_template_id, k.kind, k.key) = (held.job_template_id, held.kind, held.key);
    END IF;
  END LOOP;
END $prune$`;
