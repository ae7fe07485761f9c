import type { EntityManager } from 'typeorm';
import type { BackoffData } from '../../job/backoff.js';
import { toMilliseconds, type Duration } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import type { DebounceOptions, ThrottleOptions, UniqueOptions } from '../../job/unique-options.js';
import {
  jobRunIdentifier as readIdentifier,
  maxRetries as readMaxRetries,
  priority as readPriority,
  storedBackoff,
} from '../../options/job-options.js';
import { date, refuseTogether, refuseUnknown } from '../../options/reader.js';
import type { JobTemplate } from '../../database/entities/index.js';
import type { NewEntry } from './enqueue.sql.js';
import type { StartBy } from './start-before.sql.js';
import { newIdentifier } from './identifier.js';

export interface EnqueueOptions {
  /** The job's name, free again only when its runs are deleted; at most 500 characters. Default: a new UUID. */
  jobRunIdentifier?: string;
  /** Lower runs first. Default: the template's, which is 5 unless declared. */
  priority?: number;
  /** Not before this moment. */
  runAt?: Date;
  /** Not before this much time has passed. */
  delay?: Duration;
  /** How long a run may take. Default: the template's, which is 60 minutes unless declared. */
  timeout?: Duration;
  /** Upstream's form of `timeout`. */
  timeoutInMinutes?: number;
  /** Retries after the first run. Default: the template's, which is 3 unless declared. */
  maxRetries?: number;
  /** Default: the template's, else the module's. */
  backoff?: BackoffData;
  /** One job at a time under this key: docs/identity.md. At most one of `unique`, `debounce` and `throttle`. */
  unique?: UniqueOptions;
  /** One job for all calls until there is none for a while. */
  debounce?: DebounceOptions;
  /** One job per time at the most; the calls in between add none. */
  throttle?: ThrottleOptions;
  /**
   * By when it is to be started: a moment, or a duration from when it is enqueued. If it is not by then, it ends as
   * FAILED "Missed", and is not run late. Once started, it is tried again as any job is.
   */
  startBefore?: Date | Duration;
  /**
   * The transaction to enqueue in: rolled back, there is no entry. Default: the one that the call is made in, if any
   * (`JobEngineService.transaction`, a transactional handler's, the module's `currentManager`); `null`: none.
   */
  manager?: EntityManager | null | undefined;
}

/** What can be said of many jobs at once: a name or a key is one job's. */
export type BulkOptions = Omit<
  EnqueueOptions,
  'jobRunIdentifier' | 'unique' | 'debounce' | 'throttle'
>;

const NAMES: readonly (keyof EnqueueOptions)[] = [
  'jobRunIdentifier',
  'priority',
  'runAt',
  'delay',
  'timeout',
  'timeoutInMinutes',
  'maxRetries',
  'backoff',
  'unique',
  'debounce',
  'throttle',
  'startBefore',
  'manager',
];
const WHERE = 'enqueue options';

export type EntryDefaults = Omit<NewEntry, 'jobContext' | 'context'>;

/**
 * What the options and the template say of an entry, apart from its context.
 * @throws BildadConfigError naming the wrong option
 */
export function entryFields(template: JobTemplate, options: EnqueueOptions): EntryDefaults {
  refuseUnknown(options, NAMES, '', WHERE);
  refuseTogether(options, WHERE, 'runAt', 'delay');
  refuseTogether(options, WHERE, 'timeout', 'timeoutInMinutes');
  const { jobRunIdentifier, priority, runAt, delay, timeout, maxRetries, backoff } = options;
  return {
    jobTemplateId: template.id,
    jobRunIdentifier:
      jobRunIdentifier === undefined
        ? newIdentifier()
        : readIdentifier(jobRunIdentifier, 'jobRunIdentifier', WHERE),
    named: jobRunIdentifier !== undefined,
    priority:
      priority === undefined ? template.defaultPriority : readPriority(priority, 'priority', WHERE),
    timeoutMs:
      timeout !== undefined
        ? toMilliseconds(timeout, 'timeout', { min: 1, where: WHERE })
        : (minutes(options.timeoutInMinutes) ?? template.defaultTimeoutMs),
    maxRetries:
      maxRetries === undefined
        ? template.defaultMaxRetries
        : readMaxRetries(maxRetries, 'maxRetries', WHERE),
    backoff:
      backoff === undefined ? null : JSON.stringify(storedBackoff(backoff, 'backoff', WHERE)),
    runAt: runAt === undefined ? null : date(runAt, 'runAt', WHERE),
    delayMs: delay === undefined ? 0 : toMilliseconds(delay, 'delay', { where: WHERE }),
    retryOfJobRunId: null,
  };
}

/** @throws BildadConfigError when it is no time, or the job is not due before it */
export function readStartBy({ startBefore, runAt, delay }: EnqueueOptions): StartBy | null {
  if (startBefore === undefined) return null;
  const field = 'startBefore';
  if (startBefore instanceof Date) {
    const at = date(startBefore, field, WHERE);
    if (runAt && runAt.getTime() >= startBefore.getTime())
      throw new BildadConfigError(field, 'must be later than runAt', {
        got: startBefore,
        where: WHERE,
      });
    return { at };
  }
  const withinMs = toMilliseconds(startBefore, field, { min: 1, where: WHERE });
  if (delay !== undefined && toMilliseconds(delay, 'delay') >= withinMs)
    throw new BildadConfigError(field, 'must be longer than delay', {
      got: startBefore,
      where: WHERE,
    });
  return { withinMs };
}

function minutes(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number')
    throw new BildadConfigError('timeoutInMinutes', 'must be a number of minutes', {
      got: value,
      where: WHERE,
    });
  return toMilliseconds(value * 60_000, 'timeoutInMinutes', { min: 1, where: WHERE });
}
