import type { EntityManager } from 'typeorm';
import type { BackoffData } from '../model/backoff.js';
import { toMilliseconds, type Duration } from '../model/duration.js';
import { BildadConfigError } from '../model/errors.js';
import { refuseUnknown, text, wholeNumber } from '../model/option-values.js';
import { checkBackoff } from '../policy/backoff.js';
import type { JobTemplate } from '../store/entities/index.js';
import type { NewEntry } from '../store/enqueue.store.js';
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
  /**
   * The transaction to enqueue in: rolled back, there is no entry. Default: the one that the call is made in, if any
   * (`JobEngineService.transaction`, a transactional handler's, the module's `currentManager`); `null`: none.
   */
  manager?: EntityManager | null | undefined;
}

const NAMES: readonly (keyof EnqueueOptions)[] = [
  'jobRunIdentifier',
  'priority',
  'runAt',
  'delay',
  'timeout',
  'timeoutInMinutes',
  'maxRetries',
  'backoff',
  'manager',
];
const PRIORITY_LIMIT = 1_000_000;
/** The last millisecond of the year 9999: later ISO texts have a form PostgreSQL does not read. */
const LAST_MOMENT = 253_402_300_799_999;

/** What is not one could not be told from no transaction. @throws BildadConfigError */
export function checkManager(manager: unknown): void {
  const { query } = (manager ?? {}) as { query?: unknown };
  if (manager !== undefined && manager !== null && typeof query !== 'function')
    throw new BildadConfigError(
      'manager',
      'the EntityManager of a transaction, or null',
      manager,
    );
}

export type EntryDefaults = Omit<NewEntry, 'jobContext' | 'context'>;

/**
 * What the options and the template say of an entry, apart from its context.
 * @throws BildadConfigError naming the wrong option
 */
export function entryFields(
  template: JobTemplate,
  options: EnqueueOptions,
): EntryDefaults {
  refuseUnknown(options, '', NAMES);
  exclusive(options, 'runAt', 'delay');
  exclusive(options, 'timeout', 'timeoutInMinutes');
  const {
    jobRunIdentifier,
    priority,
    runAt,
    delay,
    timeout,
    maxRetries,
    backoff,
  } = options;
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
    backoff:
      backoff === undefined ? null : JSON.stringify(storedBackoff(backoff)),
    runAt: runAt === undefined ? null : moment(runAt),
    delayMs: delay === undefined ? 0 : toMilliseconds(delay, 'delay'),
    retryOfJobRunId: null,
  };
}

function minutes(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  if (typeof value !== 'number')
    throw new BildadConfigError(
      'timeoutInMinutes',
      'a number of minutes',
      value,
    );
  return toMilliseconds(value * 60_000, 'timeoutInMinutes', { min: 1 });
}

function moment(runAt: unknown): string {
  if (
    !(runAt instanceof Date) ||
    !(runAt.getTime() >= 0 && runAt.getTime() <= LAST_MOMENT)
  )
    throw new BildadConfigError('runAt', 'a Date from 1970 to 9999', runAt);
  return runAt.toISOString();
}

function storedBackoff(backoff: BackoffData): BackoffData {
  if (typeof backoff === 'function')
    throw new BildadConfigError(
      'backoff',
      'data: a function can be declared in @BildadJob or the module, not stored with an entry',
      backoff,
    );
  return checkBackoff(backoff, 'backoff');
}

function exclusive(
  options: EnqueueOptions,
  one: keyof EnqueueOptions,
  other: keyof EnqueueOptions,
): void {
  if (options[one] !== undefined && options[other] !== undefined)
    throw new BildadConfigError(
      `${one}, ${other}`,
      'only one of the two',
      'both',
    );
}
