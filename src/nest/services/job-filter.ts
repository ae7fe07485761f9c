import type { JobHandlerClass } from '../../job/job-handler.js';
import type { Duration } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import { jobRunIdentifier } from '../../options/job-options.js';
import {
  duration,
  integer,
  oneOf,
  partial,
  string,
  type Check,
  type SchemaOf,
} from '../../options/reader.js';
import { JobQueueStatus } from '../../job/status.js';
import type { JobTemplate } from '../../database/entities/index.js';
import type { EntryFilter, RunFilter } from '../../control/job-filter.sql.js';
import { referenceTo } from '../handlers/declaration.js';

interface CommonFilter {
  /** The handler class, the template's code, or the template. */
  job?: JobHandlerClass | string | JobTemplate;
  /** Up to 10,000. */
  jobRunIdentifiers?: readonly string[];
  /** Enqueued (for `retryJobs`: finished) longer ago than this. */
  olderThan?: Duration;
  /** Enqueued (for `retryJobs`: finished) more recently than this. */
  newerThan?: Duration;
}

/** Selects the queue entries that match all given conditions. At least one is required. */
export interface JobFilter extends CommonFilter {
  status?: JobQueueStatus;
  priority?: number | { min?: number; max?: number };
}

/** Selects the failed jobs that match all given conditions. At least one is required. */
export interface FailedJobFilter extends CommonFilter {
  /** The reason of the job's last run, exactly: `'Missed'`, `'Timeout'`. */
  reason?: string;
}

const identifiers: Check<string[]> = (value, field, where) => {
  if (!Array.isArray(value) || value.length > 10_000)
    throw new BildadConfigError(field, 'must be an array of at most 10,000 identifiers', {
      got: value,
      where,
    });
  return value.map((one) => jobRunIdentifier(one, field, where));
};

/** Priorities that operators may have written into the database have the range of its column. */
const anyPriority = integer(-2_147_483_648, 2_147_483_647);
const readRange = partial({ min: anyPriority, max: anyPriority });
const priorityRange: Check<{ min?: number; max?: number }> = (value, field, where) => {
  if (typeof value !== 'object') {
    const only = anyPriority(value, field, where);
    return { min: only, max: only };
  }
  const range = readRange(value, field, where);
  refuseEmpty(value!, ['min', 'max'], field, where);
  return range;
};

const COMMON = {
  job: (value: unknown) => referenceTo(value as JobTemplate).code,
  jobRunIdentifiers: identifiers,
  olderThan: duration(),
  newerThan: duration(),
} satisfies SchemaOf<CommonFilter>;
const JOB_FILTER = {
  ...COMMON,
  // A DONE job has no queue entry.
  status: oneOf(...Object.values(JobQueueStatus).filter((status) => status !== 'DONE')),
  priority: priorityRange,
} satisfies SchemaOf<JobFilter>;
const FAILED_FILTER = { ...COMMON, reason: string(8_000) } satisfies SchemaOf<FailedJobFilter>;
const readEntries = partial(JOB_FILTER);
const readFailed = partial(FAILED_FILTER);

/** @throws BildadConfigError */
export function readJobFilter(filter: JobFilter): EntryFilter {
  const { job, jobRunIdentifiers, olderThan, newerThan, status, priority } = readEntries(
    filter,
    'filter',
  );
  refuseEmpty(filter, Object.keys(JOB_FILTER), 'filter');
  return {
    templateCode: job,
    identifiers: jobRunIdentifiers,
    olderThanMs: olderThan,
    newerThanMs: newerThan,
    status,
    minPriority: priority?.min,
    maxPriority: priority?.max,
  };
}

/** @throws BildadConfigError */
export function readFailedFilter(filter: FailedJobFilter): RunFilter {
  const { job, jobRunIdentifiers, olderThan, newerThan, reason } = readFailed(filter, 'filter');
  refuseEmpty(filter, Object.keys(FAILED_FILTER), 'filter');
  return {
    templateCode: job,
    identifiers: jobRunIdentifiers,
    olderThanMs: olderThan,
    newerThanMs: newerThan,
    reason,
  };
}

/** A condition that is undefined by mistake must not select all jobs. */
function refuseEmpty(given: object, names: string[], field: string, where?: string): void {
  for (const [name, value] of Object.entries(given))
    if (value === undefined)
      throw new BildadConfigError(`${field}.${name}`, 'must not be undefined', { where });
  if (Object.keys(given).length === 0)
    throw new BildadConfigError(field, `must have at least one of ${names.join(', ')}`, { where });
}
