import {
  asClaim,
  claimsOf,
  type Claim,
  type Claimer,
  type ClaimRow,
  type ClaimedGroup,
} from './claim-rows.js';
import { operatorSchema, runColumns } from '../../database/columns.js';
import { isTaken } from '../../database/database-error.js';
import { dueAgainAt, outOfReady } from './reopen-rules.js';
import { LONGEST_MS } from '../../database/migrations/baseline/claim-jobs.js';
import { spared } from '../../membership/node.sql.js';
import { rows, type Queryable, type Tables } from '../../database/tables.js';

export interface NextOptions {
  /** Begin to look behind this entry, not at the head of the queue. */
  after?: ClaimedEntry | null;
  /** The run rows are written late (`run/late-run-rows`). */
  lateRows?: boolean;
}

export interface ClaimedEntry {
  id: string;
  priority: number;
}

/**
 * Claims up to `limit` due entries of the templates with these codes by priority, then age, in one
 * statement whatever the number (`migrations/003-claims-by-kind`).
 */
export async function claimNext(
  db: Queryable,
  tables: Tables,
  claimer: Claimer,
  codes: string[],
  limit: number,
  { after = null, lateRows = false }: NextOptions = {},
): Promise<{ claims: Claim[]; last: ClaimedEntry | null }> {
  try {
    const groups = await rows<ClaimedGroup>(
      db,
      `SELECT template_id::text AS "jobTemplateId", template_code AS "templateCode", operator_schema AS "operatorSchema",
         backoff_data AS backoff, retry_number AS retry, urgency AS priority, retries AS "maxRetries",
         uncounted AS "uncountedRuns", allowed_ms AS "timeoutMs", run_ids AS "runIds", entry_ids AS "entryIds",
         identifiers, contexts, dues_ms AS "duesMs", now_ms AS "nowMs"
       FROM ${tables.claim} ($1, $2, CASE WHEN EXISTS (SELECT FROM ${tables.nodes} WHERE id = $1 AND ended_at IS NOT NULL)
         THEN '{}' ELSE $3::text[] END, $4, $5, $6, $7)`,
      [
        claimer.nodeId,
        claimer.leaseMs,
        codes,
        limit,
        after?.priority ?? null,
        after?.id ?? null,
        lateRows,
      ],
    );
    const claims = claimsOf(groups, claimer);
    const last = claims.at(-1);
    return {
      claims,
      last: last ? { id: last.claimed.jobQueueEntryId, priority: last.priority } : null,
    };
  } catch (error) {
    if (!isTaken(error)) throw error;
    const claims = await claim(
      db,
      tables,
      claimer,
      `SELECT id FROM ${tables.pick} (
         ARRAY(SELECT id FROM ${tables.templates} WHERE code = ANY ($3::text[]) AND active), $4) AS id`,
      [codes, limit],
    );
    return { claims, last: null };
  }
}

/** Locks the entries that a claim would take, in its order. To be called inside a transaction. */
export async function pickEntries(
  transaction: Queryable,
  { pick, templates }: Tables,
  codes: string[],
  limit: number,
): Promise<string[]> {
  const picked = await rows<{ id: string }>(
    transaction,
    `SELECT id::text FROM ${pick} (
       ARRAY(SELECT id FROM ${templates} WHERE code = ANY ($1::text[]) AND active), $2) AS id`,
    [codes, limit],
  );
  return picked.map(({ id }) => id);
}

/** Claims these very entries if they are AVAILABLE, due or not: of ten concurrent callers one gets an entry. */
export function claimEntries(
  db: Queryable,
  tables: Tables,
  claimer: Claimer,
  entryIds: string[],
): Promise<Claim[]> {
  return claim(
    db,
    tables,
    claimer,
    `SELECT id FROM ${tables.entries} WHERE id = ANY ($3::bigint[]) AND status = 'AVAILABLE'
     ORDER BY id FOR UPDATE`,
    [entryIds],
  );
}

/**
 * Claims one job that was aboard a node when that was lost, if any is due, of the templates with these codes by
 * priority, then age. Those are not in the ready index.
 */
export async function claimSuspect(
  db: Queryable,
  tables: Tables,
  claimer: Claimer,
  codes: string[],
): Promise<Claim | null> {
  const { entries, templates } = tables;
  const [one] = await claim(
    db,
    tables,
    claimer,
    `SELECT id FROM ${entries} WHERE crashes > 0 AND status = 'AVAILABLE' AND run_at <= clock_timestamp()
       AND job_template_id IN (SELECT id FROM ${templates} WHERE code = ANY ($3::text[]) AND active)
     ORDER BY priority, id LIMIT 1 FOR UPDATE SKIP LOCKED`,
    [codes],
  );
  return one ?? null;
}

/**
 * The retry number is the entry's; unique (identifier, retry) on the runs is the second defence. Where
 * it strikes (a row written by hand, an identifier used twice), the entry is not claimed but gets the
 * next free number, so that it neither stays for ever nor holds up the queue. Locked once more for its newest version:
 * the pick may have waited for somebody who changed the context.
 */
async function claim(
  db: Queryable,
  { entries, runs, templates }: Tables,
  { nodeId, leaseMs }: Claimer,
  pick: string,
  parameters: unknown[],
): Promise<Claim[]> {
  const claimed = await rows<ClaimRow>(
    db,
    `WITH picked AS MATERIALIZED (${pick}),
     born AS (
       INSERT INTO ${runs} (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
                            node_id, job_context, available_at, started_at, timeout_at, expires_at)
       SELECT e.job_template_id, e.id, e.job_run_identifier, e.retry, e.job_run_identifier || '#' || e.retry,
              $1, e.job_context, e.run_at, clock.now, clock.now + least(e.timeout_ms, ${LONGEST_MS}) * interval '1 ms',
              clock.now + $2::float8 * interval '1 ms'
       FROM (SELECT * FROM ${entries} WHERE id = ANY (ARRAY(SELECT id FROM picked)) FOR UPDATE) e,
         (SELECT clock_timestamp() AS now) clock
       ORDER BY e.priority, e.id
       ON CONFLICT (job_run_identifier, retry) DO NOTHING
       RETURNING *
     ), taken AS (
       UPDATE ${entries} e SET
         status = CASE WHEN born.id IS NULL THEN 'AVAILABLE' ELSE 'RUNNING' END,
         retry = CASE WHEN born.id IS NOT NULL THEN e.retry + 1
                 ELSE (SELECT max(r.retry) + 1 FROM ${runs} r WHERE r.job_run_identifier = e.job_run_identifier) END,
         current_job_run_id = coalesce(born.id, e.current_job_run_id),
         scheduled = e.crashes > 0,
         updated_at = clock_timestamp()
       FROM picked LEFT JOIN born ON born.job_queue_entry_id = picked.id
       WHERE e.id = picked.id
       RETURNING e.id, e.priority, e.max_retries, e.uncounted_runs, e.timeout_ms, e.backoff, born.id AS run_id
     )
     SELECT ${runColumns('born')}, t.code AS "templateCode", taken.max_retries AS "maxRetries",
            taken.uncounted_runs AS "uncountedRuns", coalesce(taken.backoff, t.default_backoff) AS backoff,
            taken.timeout_ms::float8 AS "timeoutMs", ${operatorSchema('t')}, ${timeoutAtMs('born')}
     FROM born JOIN taken ON taken.run_id = born.id LEFT JOIN ${templates} t ON t.id = born.job_template_id
     ORDER BY taken.priority, taken.id`,
    [nodeId, leaseMs, ...parameters],
  );
  return claimed.map(asClaim);
}

/**
 * Makes this node the owner of a RUNNING run that is its own, or whose lease is over.
 * @returns null when the run is DONE, gone, or alive on another node
 */
export async function adoptRun(
  db: Queryable,
  tables: Tables,
  { nodeId, leaseMs }: Claimer,
  runId: string,
): Promise<Claim | null> {
  const { entries, runs, templates } = tables;
  const [row] = await rows<ClaimRow>(
    db,
    `WITH adopted AS (
       UPDATE ${runs} SET node_id = $1, expires_at = clock_timestamp() + $2::float8 * interval '1 ms',
         updated_at = clock_timestamp()
       WHERE id = $3 AND status = 'RUNNING' AND (node_id = $1 OR (expires_at <= clock_timestamp() AND NOT ${spared(tables, `${runs}.node_id`)}))
       RETURNING *
     )
     SELECT ${runColumns('r')}, coalesce(t.code, '') AS "templateCode", coalesce(e.max_retries, 0) AS "maxRetries",
            coalesce(e.uncounted_runs, 0) AS "uncountedRuns", coalesce(e.backoff, t.default_backoff) AS backoff,
            greatest(extract(epoch FROM r.timeout_at - clock_timestamp()) * 1000, 0)::float8 AS "timeoutMs",
            ${operatorSchema('t')}, ${timeoutAtMs('r')}
     FROM adopted r LEFT JOIN ${entries} e ON e.id = r.job_queue_entry_id AND e.current_job_run_id = r.id
       LEFT JOIN ${templates} t ON t.id = r.job_template_id`,
    [nodeId, leaseMs, runId],
  );
  return row ? asClaim(row) : null;
}

/**
 * Gives back claims that were never launched, as if they had not been made: no runs, the same retry number and time. One
 * that somebody asked to kill or cancel is left to end as asked, or by its lease. @param untilPass they are claimed after the
 * next pass at the earliest; one that was aboard a lost node, whose claims wait for no pass, after a second @returns how many
 */
export async function releaseClaims(
  db: Queryable,
  tables: Tables,
  nodeId: string,
  runIds: string[],
  untilPass = false,
): Promise<number> {
  const { entries, runs } = tables;
  const [row] = await rows<{ released: number }>(
    db,
    `WITH gone AS (
       DELETE FROM ${runs} WHERE id = ANY ($2::bigint[]) AND status = 'RUNNING' AND node_id = $1
         AND kill_requested IS NULL
       RETURNING id, job_queue_entry_id, job_run_identifier, retry
     ), back AS (
       UPDATE ${entries} e SET status = 'AVAILABLE', retry = gone.retry, updated_at = clock_timestamp(),
         scheduled = e.scheduled OR $3 OR ${outOfReady('e')},
         run_at = CASE WHEN $3 AND e.crashes > 0 THEN clock_timestamp() + interval '1 s' ELSE ${dueAgainAt(tables, 'e')} END,
         current_job_run_id = (SELECT r.id FROM ${runs} r
                               WHERE r.job_run_identifier = gone.job_run_identifier AND r.retry = gone.retry - 1)
       FROM gone WHERE e.id = gone.job_queue_entry_id AND e.status = 'RUNNING' AND e.current_job_run_id = gone.id
       RETURNING e.id
     ) SELECT count(*)::int AS released FROM back`,
    [nodeId, runIds, untilPass],
  );
  return row?.released ?? 0;
}

const timeoutAtMs = (run: string) =>
  `(extract(epoch FROM ${run}.timeout_at) * 1000)::float8 AS "timeoutAtMs"`;
