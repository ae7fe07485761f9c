import { toMilliseconds, type Duration } from './duration.js';
import { BildadError } from './errors.js';

// Errors that a handler throws to decide how its run ends. They are recognized by `code` too, because a process may load
// two copies of this package.

/** Fails the run, and the job is not retried, whatever `maxRetries` is. */
export class NonRetryableError extends BildadError {
  readonly code: string = 'NON_RETRYABLE';
}

/** Snoozes the job: it is AVAILABLE again after a delay, and uses up no retry. */
export class SnoozeError extends BildadError {
  readonly code: string = 'JOB_SNOOZED';
  readonly delayMs: number;

  /**
   * @param delay from the end of the run, by the database's clock
   * @param why stored as the run's reason, "Snoozed: why"
   * @throws BildadConfigError when `delay` is not a duration
   */
  constructor(
    delay: Duration,
    readonly why?: string,
  ) {
    super(why === undefined ? 'snoozed' : `snoozed: ${why}`);
    this.delayMs = toMilliseconds(delay, 'snooze(delay)');
  }
}

/** Cancels the job: its run ends as cancelled, and the job is not retried. */
export class JobCancelledError extends BildadError {
  readonly code: string = 'JOB_CANCELLED';

  constructor(
    /** Stored as the run's reason, "Cancelled: why". */
    readonly why: string,
  ) {
    super(`cancelled: ${why}`);
  }
}
