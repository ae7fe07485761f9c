import { BildadError, type JobRun } from 'nestjs-bildad';

/** A job that was enqueued inline has failed. */
export class JobRunFailedError extends BildadError {
  readonly code = 'JOB_RUN_FAILED';

  constructor(
    /** Its run, with the handler's error in `error`. */
    readonly run: JobRun,
    templateCode: string,
  ) {
    super(`${templateCode} ${run.jobRunIdentifier} has failed: ${run.reason}`);
  }
}

/** A drain reached its limit and more jobs are due. A job may enqueue itself. */
export class DrainLimitError extends BildadError {
  readonly code = 'DRAIN_LIMIT';

  constructor(limit: number, codes: string[]) {
    super(
      `more than ${limit} runs: does a job enqueue itself (the last ones: ${codes.join(', ')})? Else drain({ limit })`,
    );
  }
}

/** A test left a running job or an open transaction. */
export class TestLeakError extends BildadError {
  readonly code = 'TEST_LEAK';

  constructor(readonly leaks: string[]) {
    super(`the test has left behind: ${leaks.join('; ')}`);
  }
}
