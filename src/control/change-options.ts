import type { BackoffData } from '../job/backoff.js';
import { toMilliseconds, type Duration } from '../job/duration.js';
import {
  maxRetries as readMaxRetries,
  priority as readPriority,
  storedBackoff,
} from '../options/job-options.js';
import { date, refuseTogether, refuseUnknown } from '../options/reader.js';
import type { DueTime, EntryChanges } from './change-entry.sql.js';

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

const WHERE = 'changes of a job';
const CHANGES = ['priority', 'runAt', 'delay', 'timeout', 'maxRetries', 'backoff'] as const;

/** @throws BildadConfigError naming the wrong option */
export function entryChanges(changes: Omit<JobChanges, 'context'>): EntryChanges {
  refuseUnknown(changes, [...CHANGES, 'context'], '', WHERE);
  refuseTogether(changes, WHERE, 'runAt', 'delay');
  const { priority, runAt, delay, timeout, maxRetries, backoff } = changes;
  return {
    ...(priority !== undefined && {
      priority: readPriority(priority, 'priority', WHERE),
    }),
    ...(timeout !== undefined && {
      timeoutMs: toMilliseconds(timeout, 'timeout', { min: 1, where: WHERE }),
    }),
    ...(maxRetries !== undefined && {
      maxRetries: readMaxRetries(maxRetries, 'maxRetries', WHERE),
    }),
    ...(backoff !== undefined && {
      backoff: backoff === null ? null : JSON.stringify(storedBackoff(backoff, 'backoff', WHERE)),
    }),
    ...(runAt !== undefined && { due: { runAt: date(runAt, 'runAt', WHERE) } }),
    ...(delay !== undefined && {
      due: { delayMs: toMilliseconds(delay, 'delay', { where: WHERE }) },
    }),
  };
}

/** @throws BildadConfigError naming `field` */
export function dueTime(when: Date | Duration, field: string): DueTime {
  return when instanceof Date
    ? { runAt: date(when, field) }
    : { delayMs: toMilliseconds(when, field) };
}
