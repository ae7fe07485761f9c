import type { BackoffData } from '../job/backoff-data.js';
import { toMilliseconds, type Duration } from '../job/duration.js';
import { refuseUnknown, wholeNumber } from '../options/option-values.js';
import type { DueTime, EntryChanges } from './change-entry.sql.js';
import {
  exclusive,
  moment,
  PRIORITY_LIMIT,
  storedBackoff,
} from '../lifecycle/enqueue/enqueue-options.js';

/** What may be changed of a job that waits. */
export interface JobChanges {
  /** Validated as when it was enqueued. */
  context?: object;
  /** Lower runs first. */
  priority?: number;
  /** Not before this moment. */
  runAt?: Date;
  /** Not before this much time has passed, from now on. */
  delay?: Duration;
  /** How long a run may take. */
  timeout?: Duration;
  /** Retries after the first run, those included that were spent already. */
  maxRetries?: number;
  /** `null`: the template's, else the module's. */
  backoff?: BackoffData | null;
}

const CHANGES = ['priority', 'runAt', 'delay', 'timeout', 'maxRetries', 'backoff'] as const;

/** @throws BildadConfigError naming the wrong option */
export function entryChanges(changes: Omit<JobChanges, 'context'>): EntryChanges {
  refuseUnknown(changes, '', [...CHANGES, 'context']);
  exclusive(changes, 'runAt', 'delay');
  const { priority, runAt, delay, timeout, maxRetries, backoff } = changes;
  return {
    ...(priority !== undefined && {
      priority: wholeNumber(priority, 'priority', -PRIORITY_LIMIT, PRIORITY_LIMIT),
    }),
    ...(timeout !== undefined && {
      timeoutMs: toMilliseconds(timeout, 'timeout', { min: 1 }),
    }),
    ...(maxRetries !== undefined && {
      maxRetries: wholeNumber(maxRetries, 'maxRetries', 0, 1_000_000),
    }),
    ...(backoff !== undefined && {
      backoff: backoff === null ? null : JSON.stringify(storedBackoff(backoff)),
    }),
    ...(runAt !== undefined && { due: { runAt: moment(runAt) } }),
    ...(delay !== undefined && {
      due: { delayMs: toMilliseconds(delay, 'delay') },
    }),
  };
}

/** @throws BildadConfigError naming `field` */
export function dueTime(when: Date | Duration, field: string): DueTime {
  return when instanceof Date
    ? { runAt: moment(when, field) }
    : { delayMs: toMilliseconds(when, field) };
}
