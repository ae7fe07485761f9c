import type { EntityManager } from 'typeorm';
import type { JobTemplate } from '../../database/entities/index.js';
import type { BackoffData } from '../../job/backoff.js';
import type { Duration } from '../../job/duration.js';
import { BildadConfigError } from '../../job/errors.js';
import type { DebounceOptions, ThrottleOptions, UniqueOptions } from '../../job/unique-options.js';
import {
  jobRunIdentifier,
  maxRetries,
  priority,
  storedBackoff,
  timeout,
} from '../../options/job-options.js';
import {
  check,
  date,
  duration,
  group,
  oneOf,
  optional,
  partial,
  refuseTogether,
  string,
  withDefault,
  type Check,
  type SchemaOf,
} from '../../options/reader.js';
import type { KeyTerms, NewEntry, StartBefore } from './enqueue.sql.js';

export interface EnqueueOptions {
  /** Unique among all jobs that are queued or in the history; up to 500 characters. Default: a new UUID. */
  jobRunIdentifier?: string;
  /** Jobs with a lower number run first, from -1,000,000 to 1,000,000. Default: the template's. */
  priority?: number;
  /** The earliest time of the first run. */
  runAt?: Date;
  /** The earliest time of the first run, from now. Cannot be combined with `runAt`. */
  delay?: Duration;
  /** How long a run may take, from 1 ms. Default: the template's. */
  timeout?: Duration;
  /** `timeout` in minutes. Cannot be combined with `timeout`. */
  timeoutInMinutes?: number;
  /** Retries after the first run, from 0. Default: the template's. */
  maxRetries?: number;
  /** The delay before a retry. Default: the template's, else the module's. */
  backoff?: BackoffData;
  /** One job at a time under this key: docs/identity.md. At most one of `unique`, `debounce` and `throttle`. */
  unique?: UniqueOptions;
  /** One job for all calls until no call comes for a while. */
  debounce?: DebounceOptions;
  /** At most one job per time; calls in between add none. */
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

/** For error messages. */
const WHERE = 'enqueue options';

/** The key to enqueue a job under. */
export interface JobKey extends KeyTerms {
  /** With `debounce`: the delay of the job. */
  delayMs: number | null;
  /** `onConflict: 'throw'`. */
  throws: boolean;
}

const key = string(500);
const readUnique = group({
  key,
  until: withDefault(oneOf('started', 'finished'), 'finished'),
  within: optional(duration()),
  onConflict: withDefault(
    oneOf('ignore', 'replace', 'reschedule', 'keepLatest', 'throw'),
    'ignore',
  ),
} satisfies SchemaOf<UniqueOptions>);
const readDebounce = group({
  key,
  wait: duration(),
  maxWait: optional(duration()),
} satisfies SchemaOf<DebounceOptions>);
const readThrottle = group({
  key,
  every: duration({ min: 1 }),
} satisfies SchemaOf<ThrottleOptions>);

const unique: Check<JobKey> = (value, field, where) => {
  const read = readUnique(value, field, where);
  const throws = read.onConflict === 'throw';
  return {
    kind: 'unique',
    key: read.key,
    untilStarted: read.until === 'started',
    withinMs: read.within ?? null,
    onConflict: read.onConflict === 'throw' ? 'ignore' : read.onConflict,
    maxWaitMs: null,
    delayMs: null,
    throws,
  };
};

const debounce: Check<JobKey> = (value, field, where) => {
  const { key, wait, maxWait } = readDebounce(value, field, where);
  if (maxWait !== undefined && maxWait < wait)
    throw new BildadConfigError(`${field}.maxWait`, `must not be shorter than ${field}.wait`, {
      got: maxWait,
      where,
    });
  return {
    kind: 'debounce',
    key,
    untilStarted: true,
    withinMs: null,
    onConflict: 'debounce',
    maxWaitMs: maxWait ?? null,
    delayMs: wait,
    throws: false,
  };
};

const throttle: Check<JobKey> = (value, field, where) => {
  const { key, every } = readThrottle(value, field, where);
  return {
    kind: 'throttle',
    key,
    untilStarted: false,
    withinMs: every,
    onConflict: 'ignore',
    maxWaitMs: null,
    delayMs: null,
    throws: false,
  };
};

const minutes = check<number>((value) => typeof value === 'number', 'must be a number of minutes');
const startWithin = duration({ min: 1 });

const readOptions = partial({
  jobRunIdentifier,
  priority,
  runAt: date,
  delay: duration(),
  timeout,
  timeoutInMinutes: (value, field, where) =>
    timeout(minutes(value, field, where) * 60_000, field, where),
  maxRetries,
  backoff: storedBackoff,
  unique,
  debounce,
  throttle,
  startBefore: (value, field, where): StartBefore =>
    value instanceof Date
      ? { at: date(value, field, where) }
      : { withinMs: startWithin(value, field, where) },
  // Checked by CurrentTransaction.
  manager: (value) => value,
} satisfies SchemaOf<EnqueueOptions>);
export type ReadEnqueueOptions = ReturnType<typeof readOptions>;

/** @throws BildadConfigError about the first wrong option */
export function readEnqueueOptions(options: EnqueueOptions): ReadEnqueueOptions {
  refuseTogether(options, WHERE, 'runAt', 'delay');
  refuseTogether(options, WHERE, 'timeout', 'timeoutInMinutes');
  refuseTogether(options, WHERE, 'unique', 'debounce', 'throttle');
  // A debounced job is due after its `wait`.
  refuseTogether(options, WHERE, 'runAt', 'debounce');
  refuseTogether(options, WHERE, 'delay', 'debounce');
  const read = readOptions(options, '', WHERE);
  checkStartBefore(read);
  return read;
}

/** ISO texts of the years 1970 to 9999 compare like their times. */
function checkStartBefore({ startBefore, runAt, delay }: ReadEnqueueOptions): void {
  if (!startBefore) return;
  if ('at' in startBefore && runAt !== undefined && runAt >= startBefore.at)
    throw new BildadConfigError('startBefore', 'must be later than runAt', {
      got: startBefore.at,
      where: WHERE,
    });
  if ('withinMs' in startBefore && delay !== undefined && delay >= startBefore.withinMs)
    throw new BildadConfigError('startBefore', 'must be longer than delay', {
      got: startBefore.withinMs,
      where: WHERE,
    });
}

/** An entry without its context and identifier. */
export type EntryFields = Omit<NewEntry, 'jobContext' | 'context' | 'jobRunIdentifier'>;

export function entryFields(template: JobTemplate, options: ReadEnqueueOptions): EntryFields {
  const { backoff } = options;
  return {
    jobTemplateId: template.id,
    named: options.jobRunIdentifier !== undefined,
    priority: options.priority ?? template.defaultPriority,
    timeoutMs: options.timeout ?? options.timeoutInMinutes ?? template.defaultTimeoutMs,
    maxRetries: options.maxRetries ?? template.defaultMaxRetries,
    backoff: backoff === undefined ? null : JSON.stringify(backoff),
    runAt: options.runAt ?? null,
    delayMs: options.delay ?? 0,
    startBefore: options.startBefore ?? null,
    retryOfJobRunId: null,
    retryOnce: false,
  };
}

/** The key in the options, or null. */
export const jobKeyOf = ({ unique, debounce, throttle }: ReadEnqueueOptions): JobKey | null =>
  unique ?? debounce ?? throttle ?? null;

/** Names and keys belong to a single job. @throws BildadConfigError */
export function refuseKeys(options: object): void {
  for (const name of ['jobRunIdentifier', 'unique', 'debounce', 'throttle'])
    if (options && name in options)
      throw new BildadConfigError(
        name,
        'is not supported by enqueueJobs: it belongs to a single job',
      );
}

/** `enqueueAndRunJob` runs the job at once. @throws BildadConfigError */
export function refuseDelay(options: EnqueueOptions): void {
  const problem = 'delays the job, which enqueueAndRunJob runs at once: use enqueueJob instead';
  const { debounce, unique } = options ?? {};
  if (debounce !== undefined) throw new BildadConfigError('debounce', problem);
  if (unique?.onConflict === 'keepLatest')
    throw new BildadConfigError('unique.onConflict', `'keepLatest' ${problem}`);
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
