import { toMilliseconds, type Duration } from './duration.js';
import { BildadError } from './errors.js';

// What a handler may say by throwing it. `code` tells them apart where there are two copies of this package.

/** The run fails as by any error, and the job is not tried again, whatever `maxRetries` says. */
export class NonRetryableError extends BildadError {
  readonly code: string = 'NON_RETRYABLE';
}

/** The job is not for now: it is AVAILABLE again after a delay, and no retry is spent. */
export class SnoozeError extends BildadError {
  readonly code: string = 'JOB_SNOOZED';
  readonly delayMs: number;

  /**
   * @param delay from the run's end on, by the database's clock
   * @param why kept with the run, as "Snoozed: why"
   * @throws BildadConfigError when `delay` is no duration
   */
  constructor(
    delay: Duration,
    readonly why?: string,
  ) {
    super(why === undefined ? 'snoozed' : `snoozed: ${why}`);
    this.delayMs = toMilliseconds(delay, 'snooze(delay)');
  }
}

/** The job is not to be done any more: its run ends as cancelled, and it is not tried again. */
export class JobCancelledError extends BildadError {
  readonly code: string = 'JOB_CANCELLED';

  constructor(
    /** Kept with the run, as "Cancelled: why". */
    readonly why: string,
  ) {
    super(`cancelled: ${why}`);
  }
}
