import type { BackoffData } from '../job/backoff.js';
import type { Duration } from '../job/duration.js';
import { maxRetries, priority, storedBackoff, timeout } from '../options/job-options.js';
import {
  date,
  duration,
  or,
  partial,
  refuseTogether,
  type Check,
  type SchemaOf,
} from '../options/reader.js';
import type { DueTime, EntryChanges } from './change-entry.sql.js';

/** Changes of a waiting job. Omitted fields stay. */
export interface JobChanges {
  /** Validated as by `enqueueJob`. */
  context?: object;
  /** Jobs with a lower number run first, from -1,000,000 to 1,000,000. */
  priority?: number;
  /** The earliest time of the next run. */
  runAt?: Date;
  /** The earliest time of the next run, from now. Cannot be combined with `runAt`. */
  delay?: Duration;
  /** How long a run may take, from 1 ms. */
  timeout?: Duration;
  /** Retries after the first run, including those that are used up. */
  maxRetries?: number;
  /** `null`: the template's, else the module's. */
  backoff?: BackoffData | null;
}

const WHERE = 'changes of a job';
const runAt: Check<DueTime> = (...args) => ({ runAt: date(...args) });
const delay: Check<DueTime> = (value, field, where) => ({
  delayMs: duration()(value, field, where),
});
const readChanges = partial({
  // Validated by its contract.
  context: (value) => value,
  priority,
  runAt,
  delay,
  timeout,
  maxRetries,
  backoff: or(storedBackoff, null),
} satisfies SchemaOf<JobChanges>);

/** @throws BildadConfigError */
export function entryChanges(changes: Omit<JobChanges, 'context'>): EntryChanges {
  refuseTogether(changes, WHERE, 'runAt', 'delay');
  const { priority, runAt, delay, timeout, maxRetries, backoff } = readChanges(changes, '', WHERE);
  const due = runAt ?? delay;
  return {
    ...(priority !== undefined && { priority }),
    ...(timeout !== undefined && { timeoutMs: timeout }),
    ...(maxRetries !== undefined && { maxRetries }),
    ...(backoff !== undefined && {
      backoff: backoff === null ? null : JSON.stringify(backoff),
    }),
    ...(due && { due }),
  };
}

/** @throws BildadConfigError about `field` */
export const dueTime: Check<DueTime> = (when, field, where) =>
  when instanceof Date ? runAt(when, field, where) : delay(when, field, where);
