import type { JobHandlerClass } from '../../job/job-handler.js';
import { toMilliseconds, type Duration } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import { oneOf, refuseUnknown, text, wholeNumber } from '../../options/option-values.js';
import { JobQueueStatus } from '../../job/status.js';
import type { JobTemplate } from '../../database/entities/index.js';
import type { EntryFilter, RowFilter, RunFilter } from '../../control/job-filter.sql.js';
import { identifier } from './ids.js';
import { referenceTo } from '../handlers/job-reference.js';

interface CommonFilter {
  /** The handler class, the template's code, or the template. */
  job?: JobHandlerClass | string | JobTemplate;
  /** At most 10,000. */
  jobRunIdentifiers?: readonly string[];
  /** Enqueued (for `retryJobs`: ended) longer ago than this. */
  olderThan?: Duration;
  /** Enqueued (for `retryJobs`: ended) less long ago than this. */
  newerThan?: Duration;
}

/** Which queue entries: those that fit everything it names. It names one thing at least. */
export interface JobFilter extends CommonFilter {
  status?: JobQueueStatus;
  priority?: number | { min?: number; max?: number };
}

/** Which failed jobs: those that fit everything it names. It names one thing at least. */
export interface FailedJobFilter extends CommonFilter {
  /** The reason of the job's last run, exactly: `'Missed'`, `'Timeout'`. */
  reason?: string;
}

const COMMON = ['job', 'jobRunIdentifiers', 'olderThan', 'newerThan'] as const;
/** What is DONE is no entry any more. */
const QUEUED = Object.values(JobQueueStatus).filter((status) => status !== JobQueueStatus.DONE);
const PRIORITIES = [-2_147_483_648, 2_147_483_647] as const;

/** @throws BildadConfigError naming what is wrong */
export function readJobFilter(filter: JobFilter): EntryFilter {
  check(filter, 'filter', [...COMMON, 'status', 'priority']);
  const { status, priority } = filter;
  return {
    ...common(filter),
    ...(status !== undefined && {
      status: oneOf(status, 'filter.status', QUEUED),
    }),
    ...(priority !== undefined && range(priority)),
  };
}

/** @throws BildadConfigError naming what is wrong */
export function readFailedFilter(filter: FailedJobFilter): RunFilter {
  check(filter, 'filter', [...COMMON, 'reason']);
  const { reason } = filter;
  return {
    ...common(filter),
    ...(reason !== undefined && {
      reason: text(reason, 'filter.reason', 8_000),
    }),
  };
}

/** A property that is undefined by mistake must not stand for all jobs there are. */
function check(value: object, field: string, names: readonly string[]): void {
  refuseUnknown(value, `${field}.`, names);
  const given = Object.entries(value);
  for (const [name, one] of given)
    if (one === undefined) throw new BildadConfigError(`${field}.${name}`, 'a value', one);
  if (given.length === 0)
    throw new BildadConfigError(field, `at least one of ${names.join(', ')}`, value);
}

function common({ job, jobRunIdentifiers, olderThan, newerThan }: CommonFilter): RowFilter {
  return {
    ...(job !== undefined && { templateCode: referenceTo(job).code }),
    ...(jobRunIdentifiers !== undefined && {
      identifiers: identifiers(jobRunIdentifiers),
    }),
    ...(olderThan !== undefined && {
      olderThanMs: toMilliseconds(olderThan, 'filter.olderThan'),
    }),
    ...(newerThan !== undefined && {
      newerThanMs: toMilliseconds(newerThan, 'filter.newerThan'),
    }),
  };
}

function identifiers(given: unknown): string[] {
  if (!Array.isArray(given) || given.length > 10_000)
    throw new BildadConfigError(
      'filter.jobRunIdentifiers',
      'a list of 10,000 identifiers at the most',
      given,
    );
  return given.map((one) => identifier(one as string));
}

function range(priority: NonNullable<JobFilter['priority']>) {
  const whole = (value: unknown, field: string) => wholeNumber(value, field, ...PRIORITIES);
  if (typeof priority === 'number') {
    const only = whole(priority, 'filter.priority');
    return { minPriority: only, maxPriority: only };
  }
  check(priority, 'filter.priority', ['min', 'max']);
  const { min, max } = priority;
  return {
    ...(min !== undefined && {
      minPriority: whole(min, 'filter.priority.min'),
    }),
    ...(max !== undefined && {
      maxPriority: whole(max, 'filter.priority.max'),
    }),
  };
}
