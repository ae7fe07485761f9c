import { asRun, operatorSchema, runColumns } from '../../database/columns.js';
import { isUniqueViolation } from '../../database/database-error.js';
import type { JobRun } from '../../database/entities/index.js';
import { MAX_INTERVAL_MS } from '../../database/migrations/baseline/claim-jobs.js';
import { WAITS_FOR_KEY } from '../../database/migrations/baseline/job-keys.js';
import { rows, type Queryable, type Tables } from '../../database/tables.js';
import type { JsonValue } from '../../job/json.js';
import { processName, type ClaimedRun } from '../../job/run-facts.js';
import { JobRunStatus } from '../../job/status.js';
import { hasProtectedLease } from '../run/run.sql.js';

// All claims. Two statements make an AVAILABLE entry RUNNING and create its run:
//
// - the function claim_jobs: many due entries, as fast as possible. Every ordinary claim.
// - the statement of `claim`, for the rest: the entries of a selection, with features' conditions and columns.
//
// A selection is a SELECT that locks entries, in the order in which they are to start: `readyEntries`, `suspectEntries`
// or `theseEntries`.

export interface Claimer {
  nodeId: string;
  /** Milliseconds until the run counts as lost unless it is renewed. */
  leaseMs: number;
}

/** A claimed run, as facts for the engine and as an entity for the user. */
export interface Claim {
  claimed: ClaimedRun;
  /** Values that features asked for (`ClaimPart.columns`). */
  columns?: Record<string, unknown>;
  /** Creates the entity when called: the engine itself needs none. */
  jobRun(): JobRun;
  /** Milliseconds since the job was due, by the database's clock. */
  waitedMs(): number;
}

export interface ClaimedEntry {
  id: string;
  priority: number;
}

/**
 * What a feature adds to one claim, as data. Aliases: `e` is the queue entry. Parameters are numbered from `$1` in
 * each fragment.
 */
export interface ClaimPart {
  /** A condition on the entries that may be claimed. */
  readonly where?: string;
  /** Values of each claimed entry, by name, for `Claim.columns`. */
  readonly columns?: Readonly<Record<string, string>>;
  readonly parameters?: readonly unknown[];
}

export interface NextOptions {
  /** Begin behind this entry, not at the head of the queue. */
  after?: ClaimedEntry | null;
  /** The run rows are written late (`run/late-run-rows`). */
  lateRows?: boolean;
  /** What features contribute to this claim. Such claims begin at the head and write the rows of their runs at once. */
  parts?: readonly ClaimPart[];
}

/**
 * Claims up to `limit` due entries of the templates with these codes by priority, then age, in one statement whatever
 * the number.
 */
export async function claimNext(
  db: Queryable,
  tables: Tables,
  claimer: Claimer,
  codes: string[],
  limit: number,
  { after = null, lateRows = false, parts = [] }: NextOptions = {},
): Promise<{ claims: Claim[]; last: ClaimedEntry | null }> {
  const claimSelected = async () => {
    const selection = readyEntries(tables, codes, limit, parts);
    return { claims: await claim(db, tables, claimer, selection), last: null };
  };
  if (parts.length > 0) return claimSelected();
  try {
    const groups = await rows<ClaimedGroup>(
      db,
      `SELECT template_id::text AS "jobTemplateId", template_code AS "templateCode", operator_schema AS "operatorSchema",
         backoff_data AS backoff, retry_number AS retry, entry_priority AS priority, entry_max_retries AS "maxRetries",
         entry_uncounted_runs AS "uncountedRuns", entry_timeout_ms AS "timeoutMs", run_ids AS "runIds", entry_ids AS "entryIds",
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
    // A run of the identifier has this retry number: the other statement takes the next free one.
    if (isUniqueViolation(error)) return claimSelected();
    throw error;
  }
}

/** Claims these entries if they are AVAILABLE, due or not. Of ten concurrent callers one gets an entry. */
export function claimEntries(
  db: Queryable,
  tables: Tables,
  claimer: Claimer,
  entryIds: string[],
): Promise<Claim[]> {
  return claim(db, tables, claimer, theseEntries(tables, entryIds));
}

/** Claims the next suspect that is due, of the templates with these codes. */
export async function claimSuspect(
  db: Queryable,
  tables: Tables,
  claimer: Claimer,
  codes: string[],
): Promise<Claim | null> {
  const [suspect] = await claim(db, tables, claimer, suspectEntries(tables, codes));
  return suspect ?? null;
}

/** Locks the entries that `claimNext` would claim, in its order. Call it inside a transaction. */
export async function lockNext(
  transaction: Queryable,
  tables: Tables,
  codes: string[],
  limit: number,
): Promise<string[]> {
  const { sql, parameters } = readyEntries(tables, codes, limit, [], 1);
  const locked = await rows<{ id: string }>(transaction, `SELECT id::text FROM (${sql}) e`, [
    ...parameters,
  ]);
  return locked.map(({ id }) => id);
}

/** A SELECT of entry ids. Its parameters follow the statement's own two. */
interface Selection {
  sql: string;
  parameters: readonly unknown[];
  /** An object of the columns that features asked for. */
  columns?: string;
}

const openTemplates = ({ templates }: Tables, codes: string) =>
  `(SELECT id FROM ${templates} WHERE code = ANY (${codes}::text[]) AND active)`;

function readyEntries(
  tables: Tables,
  codes: string[],
  limit: number,
  parts: readonly ClaimPart[],
  first = 3,
): Selection {
  const parameters: unknown[] = [codes, limit];
  const conditions: string[] = [];
  const columns: string[] = [];
  for (const part of parts) {
    const firstParameter = first + parameters.length;
    if (part.where) conditions.push(`AND (${renumbered(part.where, firstParameter)})`);
    for (const [name, sql] of Object.entries(part.columns ?? {}))
      columns.push(`'${name.replaceAll("'", "''")}', ${renumbered(sql, firstParameter)}`);
    parameters.push(...(part.parameters ?? []));
  }
  return {
    sql: `SELECT e.id FROM ${tables.entries} e
     WHERE NOT e.scheduled AND e.status = 'AVAILABLE' AND e.job_template_id IN ${openTemplates(tables, `$${first}`)}
       ${conditions.join(' ')}
     ORDER BY e.priority, e.id LIMIT $${first + 1} FOR UPDATE OF e SKIP LOCKED`,
    parameters,
    ...(columns.length > 0 && { columns: `jsonb_build_object(${columns.join(', ')})` }),
  };
}

/** Suspects are not in the index of ready entries. */
const suspectEntries = (tables: Tables, codes: string[]): Selection => ({
  sql: `SELECT id FROM ${tables.entries} WHERE crashes > 0 AND status = 'AVAILABLE' AND run_at <= clock_timestamp()
       AND job_template_id IN ${openTemplates(tables, '$3')}
     ORDER BY priority, id LIMIT 1 FOR UPDATE SKIP LOCKED`,
  parameters: [codes],
});

const theseEntries = ({ entries }: Tables, entryIds: string[]): Selection => ({
  sql: `SELECT id FROM ${entries} WHERE id = ANY ($3::bigint[]) AND status = 'AVAILABLE' ORDER BY id FOR UPDATE`,
  parameters: [entryIds],
});

/** `$1` of a fragment becomes `$first` of the statement, and so on. */
const renumbered = (fragment: string, first: number) =>
  fragment.replace(/\$(\d+)/g, (_, number: string) => `$${first + Number(number) - 1}`);

/**
 * The retry number is the entry's; unique (identifier, retry) on the runs is the second defence. If the number is taken
 * (a row written by hand, an identifier used twice), the entry is not claimed but gets the next free number, so it
 * neither waits for ever nor blocks the queue. The entries are locked once more to read their newest version: the
 * selection may have waited for a transaction that changed the context.
 */
async function claim(
  db: Queryable,
  { entries, runs, templates }: Tables,
  { nodeId, leaseMs }: Claimer,
  selection: Selection,
): Promise<Claim[]> {
  const { columns } = selection;
  const claimed = await rows<ClaimRow>(
    db,
    `WITH picked AS MATERIALIZED (${selection.sql}),
     new_runs AS (
       INSERT INTO ${runs} (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
                            node_id, job_context, available_at, started_at, timeout_at, expires_at)
       SELECT e.job_template_id, e.id, e.job_run_identifier, e.retry, e.job_run_identifier || '#' || e.retry,
              $1, e.job_context, e.run_at, clock.now, clock.now + least(e.timeout_ms, ${MAX_INTERVAL_MS}) * interval '1 ms',
              clock.now + $2::float8 * interval '1 ms'
       FROM (SELECT * FROM ${entries} WHERE id = ANY (ARRAY(SELECT id FROM picked)) FOR UPDATE) e,
         (SELECT clock_timestamp() AS now) clock
       ORDER BY e.priority, e.id
       ON CONFLICT (job_run_identifier, retry) DO NOTHING
       RETURNING *
     ), claimed_entries AS (
       UPDATE ${entries} e SET
         status = CASE WHEN new_runs.id IS NULL THEN 'AVAILABLE' ELSE 'RUNNING' END,
         retry = CASE WHEN new_runs.id IS NOT NULL THEN e.retry + 1
                 ELSE (SELECT max(r.retry) + 1 FROM ${runs} r WHERE r.job_run_identifier = e.job_run_identifier) END,
         current_job_run_id = coalesce(new_runs.id, e.current_job_run_id),
         scheduled = CASE WHEN new_runs.id IS NULL THEN ${isNotReady('e')} ELSE e.crashes > 0 END,
         updated_at = clock_timestamp()
       FROM picked LEFT JOIN new_runs ON new_runs.job_queue_entry_id = picked.id
       WHERE e.id = picked.id
       RETURNING e.id, e.priority, e.max_retries, e.uncounted_runs, e.timeout_ms, e.backoff, new_runs.id AS run_id${columns ? `, ${columns} AS extra` : ''}
     )
     SELECT ${runColumns('new_runs')}, t.code AS "templateCode", claimed_entries.max_retries AS "maxRetries",
            claimed_entries.uncounted_runs AS "uncountedRuns", coalesce(claimed_entries.backoff, t.default_backoff) AS backoff,
            claimed_entries.timeout_ms::float8 AS "timeoutMs", ${operatorSchema('t')}, ${timeoutAtMs('new_runs')}${columns ? ', extra' : ''}
     FROM new_runs JOIN claimed_entries ON claimed_entries.run_id = new_runs.id LEFT JOIN ${templates} t ON t.id = new_runs.job_template_id
     ORDER BY claimed_entries.priority, claimed_entries.id`,
    [nodeId, leaseMs, ...selection.parameters],
  );
  return claimed.map(asClaim);
}

/**
 * Makes this node the owner of a RUNNING run that it owns already, or whose lease is over.
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
       WHERE id = $3 AND status = 'RUNNING' AND (node_id = $1 OR
         (expires_at <= clock_timestamp() AND NOT ${hasProtectedLease(tables, `${runs}.node_id`)}))
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
 * Releases claims that were never launched: no runs, the same retry number and time. A claim with a kill request is not
 * released: it ends as requested, or by its lease.
 * @param untilPass the entries are claimed after the next pass at the earliest; suspects, which need no pass, after a
 *   second
 * @returns how many
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
    `WITH deleted_runs AS (
       DELETE FROM ${runs} WHERE id = ANY ($2::bigint[]) AND status = 'RUNNING' AND node_id = $1
         AND kill_requested IS NULL
       RETURNING id, job_queue_entry_id, job_run_identifier, retry
     ), released AS (
       UPDATE ${entries} e SET status = 'AVAILABLE', retry = deleted_runs.retry, updated_at = clock_timestamp(),
         scheduled = e.scheduled OR $3 OR ${isNotReady('e')},
         run_at = CASE WHEN $3 AND e.crashes > 0 THEN clock_timestamp() + interval '1 s' ELSE ${reopenedRunAt(tables, 'e')} END,
         current_job_run_id = (SELECT r.id FROM ${runs} r
                               WHERE r.job_run_identifier = deleted_runs.job_run_identifier AND r.retry = deleted_runs.retry - 1)
       FROM deleted_runs WHERE e.id = deleted_runs.job_queue_entry_id AND e.status = 'RUNNING' AND e.current_job_run_id = deleted_runs.id
       RETURNING e.id
     ) SELECT count(*)::int AS released FROM released`,
    [nodeId, runIds, untilPass],
  );
  return row?.released ?? 0;
}

/** Whether an entry that becomes AVAILABLE is not for ordinary claims: it is not due yet, or it is a suspect. */
export const isNotReady = (entry: string) =>
  `(${entry}.crashes > 0 OR ${entry}.run_at > clock_timestamp())`;

/**
 * When a reopened entry is due. An entry that waited for its unique key and was started by hand has no due time: if no
 * key refers to it any more, it is due now. The key is locked, so it cannot make the entry due meanwhile.
 */
export const reopenedRunAt = ({ keys }: Tables, entry: string) =>
  `CASE WHEN ${entry}.run_at = '${WAITS_FOR_KEY}' AND NOT EXISTS (
             SELECT FROM ${keys} k WHERE k.job_template_id = ${entry}.job_template_id AND k.next_entry_id = ${entry}.id FOR UPDATE)
           THEN clock_timestamp() ELSE ${entry}.run_at END`;

const timeoutAtMs = (run: string) =>
  `(extract(epoch FROM ${run}.timeout_at) * 1000)::float8 AS "timeoutAtMs"`;

type ClaimRow = JobRun &
  Pick<
    ClaimedRun,
    | 'templateCode'
    | 'maxRetries'
    | 'uncountedRuns'
    | 'backoff'
    | 'timeoutMs'
    | 'timeoutAtMs'
    | 'jobContext'
    | 'operatorSchema'
  > & { extra?: Record<string, unknown> };

function asClaim(row: ClaimRow): Claim {
  const {
    templateCode,
    maxRetries,
    uncountedRuns,
    backoff,
    timeoutMs,
    operatorSchema,
    timeoutAtMs,
    extra,
    ...run
  } = row;
  const { id, jobRunIdentifier, jobTemplateId, jobQueueEntryId, retry, jobContext } = run;
  return {
    jobRun: () => asRun(run),
    waitedMs: () => Number(run.startedAt) - Number(run.availableAt),
    ...(extra && { columns: extra }),
    claimed: {
      jobRunId: id,
      jobQueueEntryId,
      jobRunIdentifier,
      jobTemplateId,
      templateCode,
      retry,
      maxRetries,
      uncountedRuns,
      backoff,
      timeoutMs,
      timeoutAtMs,
      jobContext,
      operatorSchema,
    },
  };
}

/** Entries that `claim_jobs` claimed together and that differ only in these texts. The n-th value is the n-th entry's. */
interface ClaimedGroup extends Pick<
  ClaimedRun,
  | 'jobTemplateId'
  | 'templateCode'
  | 'operatorSchema'
  | 'backoff'
  | 'retry'
  | 'maxRetries'
  | 'uncountedRuns'
  | 'timeoutMs'
> {
  priority: number;
  /** Numbers, separated by commas. */
  runIds: string;
  entryIds: string;
  /** JSON lists. */
  identifiers: string;
  contexts: string;
  /** When they became due: milliseconds since 1970, separated by commas. */
  duesMs: string;
  nowMs: number;
  /** `duesMs`, split when it is first needed. */
  dues?: string[];
}

/** In the order of their runs. */
function claimsOf(groups: ClaimedGroup[], claimer: Claimer): GroupedClaim[] {
  const claims = groups.flatMap((group) => {
    const runIds = group.runIds.split(',');
    const entryIds = group.entryIds.split(',');
    const identifiers = JSON.parse(group.identifiers) as string[];
    const contexts = JSON.parse(group.contexts) as JsonValue[];
    const timeoutAtMs = group.nowMs + Math.min(group.timeoutMs, MAX_INTERVAL_MS);
    return runIds.map(
      (jobRunId, index) =>
        new GroupedClaim(group, index, claimer, {
          jobRunId,
          jobQueueEntryId: entryIds[index]!,
          jobRunIdentifier: identifiers[index]!,
          jobTemplateId: group.jobTemplateId,
          templateCode: group.templateCode,
          retry: group.retry,
          maxRetries: group.maxRetries,
          uncountedRuns: group.uncountedRuns,
          backoff: group.backoff,
          jobContext: contexts[index]!,
          operatorSchema: group.operatorSchema,
          timeoutMs: group.timeoutMs,
          timeoutAtMs,
        }),
    );
  });
  // Ids are bigints as text: of two positive ones the longer is the larger.
  return claims.toSorted((one, other) => {
    const a = one.claimed.jobRunId;
    const b = other.claimed.jobRunId;
    return a.length - b.length || (a < b ? -1 : 1);
  });
}

class GroupedClaim implements Claim {
  constructor(
    private readonly group: ClaimedGroup,
    private readonly index: number,
    private readonly claimer: Claimer,
    readonly claimed: ClaimedRun,
  ) {}

  get priority(): number {
    return this.group.priority;
  }

  waitedMs(): number {
    return this.group.nowMs - this.dueMs;
  }

  private get dueMs(): number {
    const dues = (this.group.dues ??= this.group.duesMs.split(','));
    return Number(dues[this.index]);
  }

  jobRun(): JobRun {
    const { claimed, claimer, group } = this;
    const startedAt = new Date(group.nowMs);
    return asRun({
      id: claimed.jobRunId,
      jobTemplateId: claimed.jobTemplateId,
      jobQueueEntryId: claimed.jobQueueEntryId,
      jobRunIdentifier: claimed.jobRunIdentifier,
      retry: claimed.retry,
      jobProcessName: processName(claimed),
      nodeId: claimer.nodeId,
      status: JobRunStatus.RUNNING,
      result: null,
      outcome: null,
      reason: null,
      error: null,
      output: null,
      jobContext: claimed.jobContext,
      killRequested: null,
      availableAt: new Date(this.dueMs),
      startedAt,
      timeoutAt: new Date(claimed.timeoutAtMs),
      expiresAt: new Date(group.nowMs + claimer.leaseMs),
      endedAt: null,
      insertedAt: startedAt,
      updatedAt: startedAt,
    });
  }
}
