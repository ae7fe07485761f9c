import { BildadError } from './errors.js';

/** The identifier names a job that is queued, or that ran and is in the history; or another job holds the key. */
export class DuplicateJobError extends BildadError {
  readonly code = 'DUPLICATE_JOB';

  constructor(
    /** Of the job that is there. */
    readonly jobRunIdentifier: string,
    /** The `unique.key` that it holds, where that is in the way. */
    readonly uniqueKey?: string,
  ) {
    super(
      uniqueKey === undefined
        ? `a job "${jobRunIdentifier}" is queued or has run already`
        : `the unique key "${uniqueKey}" is held by the job "${jobRunIdentifier}"`,
    );
  }
}

/**
 * The connection was lost while a job was being added, and the database could not be asked in time whether it was.
 * Enqueueing it again under this identifier makes one job of both.
 */
export class EnqueueOutcomeUnknownError extends BildadError {
  readonly code = 'ENQUEUE_OUTCOME_UNKNOWN';

  constructor(
    /** Of the first job, where there are many: all of them were added, or none. */
    readonly jobRunIdentifier: string,
    options?: ErrorOptions,
  ) {
    super(
      `nobody knows whether job "${jobRunIdentifier}" was added: the connection was lost meanwhile, and the database did not come back in time`,
      options,
    );
  }
}

/**
 * What was to travel with a job does not: `capture` threw (the `cause`), or returned what is no JSON or too large. The
 * call that enqueues is refused. In a run: `restore` did not call `next`, and the run fails.
 */
export class CarriedContextError extends BildadError {
  readonly code = 'CARRIED_CONTEXT';

  constructor(
    /** Its name among the module's `carry`. */
    readonly carrier: string,
    what: string,
    options?: ErrorOptions,
  ) {
    super(`carry.${carrier}: ${what}`, options);
  }
}
