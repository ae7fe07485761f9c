import { BildadError, type JobRun } from 'nestjs-bildad';

/** A job that was enqueued inline has failed. */
export class JobRunFailedError extends BildadError {
  readonly code = 'JOB_RUN_FAILED';

  constructor(
    /** Its run, with what the handler threw in `error`. */
    readonly run: JobRun,
    templateCode: string,
  ) {
    super(`${templateCode} ${run.jobRunIdentifier} has failed: ${run.reason}`);
  }
}

/** A drain has run as many jobs as it may, and there are more: one that enqueues itself, perhaps. */
export class DrainLimitError extends BildadError {
  readonly code = 'DRAIN_LIMIT';

  constructor(limit: number, codes: string[]) {
    super(
      `more than ${limit} runs: does a job enqueue itself (the last ones: ${codes.join(', ')})? Else drain({ limit })`,
    );
  }
}

/** A test has left something behind. */
export class TestLeakError extends BildadError {
  readonly code = 'TEST_LEAK';

  constructor(readonly leaks: string[]) {
    super(`the test has left behind: ${leaks.join('; ')}`);
  }
}
