import { envelopeOf, toEntityContext, toEntityResult } from '../context/envelope.js';
import { JobQueueEntry, JobRun, JobTemplate } from './entities/index.js';

/** Column lists that read a row as its entity's properties; bigints as text, milliseconds as numbers. */
function select(columns: Record<string, string>): (alias: string) => string {
  return (alias) =>
    Object.entries(columns)
      .map(([property, column]) => {
        const [name, cast] = column.split('::');
        return `${alias}.${name}${cast ? `::${cast}` : ''} AS "${property}"`;
      })
      .join(', ');
}

export const entryColumns = select({
  id: 'id::text',
  jobTemplateId: 'job_template_id::text',
  jobRunIdentifier: 'job_run_identifier',
  status: 'status',
  priority: 'priority',
  timeoutMs: 'timeout_ms::float8',
  maxRetries: 'max_retries',
  backoff: 'backoff',
  jobContext: 'job_context',
  runAt: 'run_at',
  scheduled: 'scheduled',
  retry: 'retry',
  uncountedRuns: 'uncounted_runs',
  crashes: 'crashes',
  currentJobRunId: 'current_job_run_id::text',
  retryOfJobRunId: 'retry_of_job_run_id::text',
  startBefore: 'start_before',
  quarantinedAt: 'quarantined_at',
  quarantineReason: 'quarantine_reason',
  insertedAt: 'inserted_at',
  updatedAt: 'updated_at',
});

export const runColumns = select({
  id: 'id::text',
  jobTemplateId: 'job_template_id::text',
  jobQueueEntryId: 'job_queue_entry_id::text',
  jobRunIdentifier: 'job_run_identifier',
  retry: 'retry',
  jobProcessName: 'job_process_name',
  nodeId: 'node_id',
  status: 'status',
  result: 'result',
  outcome: 'outcome',
  reason: 'reason',
  error: 'error',
  output: 'output',
  jobContext: 'job_context',
  killRequested: 'kill_requested',
  retriedAt: 'retried_at',
  availableAt: 'available_at',
  startedAt: 'started_at',
  timeoutAt: 'timeout_at',
  expiresAt: 'expires_at',
  endedAt: 'ended_at',
  insertedAt: 'inserted_at',
  updatedAt: 'updated_at',
});

export const templateColumns = select({
  id: 'id::text',
  name: 'name',
  code: 'code',
  active: 'active',
  displayOrder: 'display_order',
  jobModuleName: 'job_module_name',
  defaultTimeoutMs: 'default_timeout_ms::float8',
  defaultMaxRetries: 'default_max_retries',
  defaultPriority: 'default_priority',
  defaultBackoff: 'default_backoff',
  jobContextSchema: 'job_context_schema',
  contextVersion: 'context_version',
  encrypt: 'encrypt',
  insertedAt: 'inserted_at',
  updatedAt: 'updated_at',
});

/** The template's schema if an operator changed it; null if it equals the declared one. */
export const operatorSchema = (t: string) =>
  `CASE WHEN ${t}.job_context_schema IS DISTINCT FROM ${t}.declared -> 'jobContextSchema'
     THEN ${t}.job_context_schema END AS "operatorSchema"`;

export function asEntry(row: object): JobQueueEntry {
  const entry = Object.assign(new JobQueueEntry(), row);
  if (envelopeOf(entry.jobContext)) entry.jobContext = toEntityContext(entry.jobContext);
  return entry;
}

export function asRun(row: object): JobRun {
  const run = Object.assign(new JobRun(), row);
  if (envelopeOf(run.jobContext)) run.jobContext = toEntityContext(run.jobContext);
  if (envelopeOf(run.output)) run.output = toEntityResult(run.output);
  return run;
}

export const asTemplate = (row: object) => Object.assign(new JobTemplate(), row);
