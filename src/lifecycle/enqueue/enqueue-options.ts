import type { EntityManager } from 'typeorm';
import type { BackoffData } from '../../job/backoff.js';
import { toMilliseconds, type Duration } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import type { DebounceOptions, ThrottleOptions, UniqueOptions } from '../../job/unique-options.js';
import {
  maxRetries as readMaxRetries,
  priority as readPriority,
  storedBackoff,
} from '../../options/job-options.js';
import { date, oneOf, refuseTogether, refuseUnknown, string } from '../../options/reader.js';
import type { JobTemplate } from '../../database/entities/index.js';
import type { KeyTerms, NewEntry, StartBefore } from './enqueue.sql.js';

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
  /** One job for all calls until no call comes for a while. */
  debounce?: DebounceOptions;
  /** One job per time at the most; the calls in between add none. */
  throttle?: ThrottleOptions;
  /**
   * When its first run must have started: a moment, or a duration from the insert. Otherwise the job ends as
   * FAILED "Missed", and does not run late. Its retries have no such limit.
   */
  startBefore?: Date | Duration;
  /**
   * The transaction to enqueue in: a rollback undoes the enqueue. Default: the transaction of the call, if any
   * (`JobEngineService.transaction`, a transactional handler's, the module's `currentManager`); `null`: none.
   */
  manager?: EntityManager | null | undefined;
}

/** Options for many jobs at once: a `jobRunIdentifier` or a key belongs to one job. */
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
const readConflict = oneOf('ignore', 'replace', 'reschedule', 'keepLatest', 'throw');
const readUntil = oneOf('started', 'finished');
const readKey = string(500);
/** For error messages. */
export const WHERE = 'enqueue options';

/** An entry without its context and identifier. */
export type EntryFields = Omit<NewEntry, 'jobContext' | 'context' | 'jobRunIdentifier'>;

/** @throws BildadConfigError */
export function entryFields(template: JobTemplate, options: EnqueueOptions): EntryFields {
  refuseUnknown(options, NAMES, '', WHERE);
  refuseTogether(options, WHERE, 'runAt', 'delay');
  refuseTogether(options, WHERE, 'timeout', 'timeoutInMinutes');
  const { priority, runAt, delay, timeout, maxRetries, backoff } = options;
  return {
    jobTemplateId: template.id,
    named: options.jobRunIdentifier !== undefined,
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
    startBefore: options.startBefore === undefined ? null : readStartBefore(options),
    retryOfJobRunId: null,
    retryOnce: false,
  };
}

/** @throws BildadConfigError when it is no time, or the job is not due before it */
function readStartBefore({ startBefore, runAt, delay }: EnqueueOptions): StartBefore {
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
  const withinMs = toMilliseconds(startBefore!, field, { min: 1, where: WHERE });
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

/** The key to enqueue a job under. */
export interface JobKey extends KeyTerms {
  /** With `debounce`: the delay of the job. */
  delayMs: number | null;
  /** `onConflict: 'throw'`. */
  throws: boolean;
}

/** The key in the options, or null. @throws BildadConfigError */
export function jobKeyOf(options: EnqueueOptions): JobKey | null {
  const { unique, debounce, throttle } = options;
  if (unique === undefined && debounce === undefined && throttle === undefined) return null;
  refuseTogether(options, WHERE, 'unique', 'debounce', 'throttle');
  if (unique !== undefined) return uniqueKey(unique);
  if (debounce !== undefined) {
    refuseTogether(options, WHERE, 'runAt', 'debounce');
    refuseTogether(options, WHERE, 'delay', 'debounce');
    return debounceKey(debounce);
  }
  return throttleKey(throttle!);
}

function uniqueKey(options: NonNullable<EnqueueOptions['unique']>): JobKey {
  refuseUnknown(options, ['key', 'until', 'within', 'onConflict'], 'unique', WHERE);
  const { key, until = 'finished', within, onConflict = 'ignore' } = options;
  readConflict(onConflict, 'unique.onConflict', WHERE);
  return {
    kind: 'unique',
    key: readKey(key, 'unique.key', WHERE),
    untilStarted: readUntil(until, 'unique.until', WHERE) === 'started',
    withinMs: within === undefined ? null : toMilliseconds(within, 'unique.within'),
    onConflict: onConflict === 'throw' ? 'ignore' : onConflict,
    maxWaitMs: null,
    delayMs: null,
    throws: onConflict === 'throw',
  };
}

function debounceKey(options: NonNullable<EnqueueOptions['debounce']>): JobKey {
  refuseUnknown(options, ['key', 'wait', 'maxWait'], 'debounce', WHERE);
  const { key, wait, maxWait } = options;
  const delayMs = toMilliseconds(wait, 'debounce.wait');
  return {
    kind: 'debounce',
    key: readKey(key, 'debounce.key', WHERE),
    untilStarted: true,
    withinMs: null,
    onConflict: 'debounce',
    maxWaitMs:
      maxWait === undefined ? null : toMilliseconds(maxWait, 'debounce.maxWait', { min: delayMs }),
    delayMs,
    throws: false,
  };
}

function throttleKey(options: NonNullable<EnqueueOptions['throttle']>): JobKey {
  refuseUnknown(options, ['key', 'every'], 'throttle', WHERE);
  const { key, every } = options;
  return {
    kind: 'throttle',
    key: readKey(key, 'throttle.key', WHERE),
    untilStarted: false,
    withinMs: toMilliseconds(every, 'throttle.every', { min: 1 }),
    onConflict: 'ignore',
    maxWaitMs: null,
    delayMs: null,
    throws: false,
  };
}

/**
 * A call with a key may change the entry of another job, which keeps its own `startBefore` and encryption.
 * @throws BildadConfigError
 */
export function checkKeyedEntry(
  { kind, onConflict }: JobKey,
  startBefore: unknown,
  encrypts: boolean,
): void {
  if (startBefore !== null)
    throw new BildadConfigError('startBefore', `cannot be combined with ${kind}`, { where: WHERE });
  if (encrypts && onConflict !== 'ignore')
    throw new BildadConfigError(
      kind,
      "supports only onConflict 'ignore' or 'throw' for a job with an encrypted context, which cannot move to another job",
      { got: onConflict, where: WHERE },
    );
}
