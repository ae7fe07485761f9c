import type { EntityManager } from 'typeorm';
import type { BackoffData } from '../../job/backoff-data.js';
import { toMilliseconds, type Duration } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import type { DebounceOptions, ThrottleOptions, UniqueOptions } from '../../job/unique-options.js';
import { refuseUnknown, text, wholeNumber } from '../../options/option-values.js';
import { checkBackoff } from '../../job/backoff.js';
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
export const PRIORITY_LIMIT = 1_000_000;
/** The last millisecond of the year 9999: later ISO texts have a form PostgreSQL does not read. */
const LAST_MOMENT = 253_402_300_799_999;

export type EntryDefaults = Omit<NewEntry, 'jobContext' | 'context'>;

/**
 * What the options and the template say of an entry, apart from its context.
 * @throws BildadConfigError naming the wrong option
 */
export function entryFields(template: JobTemplate, options: EnqueueOptions): EntryDefaults {
  refuseUnknown(options, '', NAMES);
  exclusive(options, 'runAt', 'delay');
  exclusive(options, 'timeout', 'timeoutInMinutes');
  const { jobRunIdentifier, priority, runAt, delay, timeout, maxRetries, backoff } = options;
  return {
    jobTemplateId: template.id,
    jobRunIdentifier:
      jobRunIdentifier === undefined
        ? newIdentifier()
        : text(jobRunIdentifier, 'jobRunIdentifier', 500),
    named: jobRunIdentifier !== undefined,
    priority:
      priority === undefined
        ? template.defaultPriority
        : wholeNumber(priority, 'priority', -PRIORITY_LIMIT, PRIORITY_LIMIT),
    timeoutMs:
      timeout !== undefined
        ? toMilliseconds(timeout, 'timeout', { min: 1 })
        : (minutes(options.timeoutInMinutes) ?? template.defaultTimeoutMs),
    maxRetries:
      maxRetries === undefined
        ? template.defaultMaxRetries
        : wholeNumber(maxRetries, 'maxRetries', 0, 1_000_000),
    backoff: backoff === undefined ? null : JSON.stringify(storedBackoff(backoff)),
    runAt: runAt === undefined ? null : moment(runAt),
    delayMs: delay === undefined ? 0 : toMilliseconds(delay, 'delay'),
    retryOfJobRunId: null,
  };
}

/** @throws BildadConfigError when it is no time, or the job is not due before it */
export function readStartBy({ startBefore, runAt, delay }: EnqueueOptions): StartBy | null {
  if (startBefore === undefined) return null;
  const field = 'startBefore';
  if (startBefore instanceof Date) {
    const at = moment(startBefore, field);
    if (runAt && runAt.getTime() >= startBefore.getTime())
      throw new BildadConfigError(field, 'a moment after runAt', startBefore);
    return { at };
  }
  const withinMs = toMilliseconds(startBefore, field, { min: 1 });
  if (delay !== undefined && toMilliseconds(delay, 'delay') >= withinMs)
    throw new BildadConfigError(field, 'more than delay', startBefore);
  return { withinMs };
}

function minutes(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number')
    throw new BildadConfigError('timeoutInMinutes', 'a number of minutes', value);
  return toMilliseconds(value * 60_000, 'timeoutInMinutes', { min: 1 });
}

export function moment(runAt: unknown, field = 'runAt'): string {
  if (!(runAt instanceof Date) || !(runAt.getTime() >= 0 && runAt.getTime() <= LAST_MOMENT))
    throw new BildadConfigError(field, 'a Date from 1970 to 9999', runAt);
  return runAt.toISOString();
}

export function storedBackoff(backoff: BackoffData): BackoffData {
  if (typeof backoff === 'function')
    throw new BildadConfigError(
      'backoff',
      'data: a function can be declared in @BildadJob or the module, not stored with an entry',
      backoff,
    );
  return checkBackoff(backoff, 'backoff');
}

export function exclusive<O extends object>(
  options: O,
  one: keyof O & string,
  other: keyof O & string,
): void {
  if (options[one] !== undefined && options[other] !== undefined)
    throw new BildadConfigError(`${one}, ${other}`, 'only one of the two', 'both');
}
