import type { JobRun } from 'nestjs-bildad';

/** A job that was enqueued inline has failed. */
export class JobRunFailedError extends Error {
  override readonly name = 'JobRunFailedError';

  constructor(
    /** Its run, with what the handler threw in `error`. */
    readonly run: JobRun,
    code: string,
  ) {
    super(`${code} ${run.jobRunIdentifier} has failed: ${run.reason}`);
  }
}

/** A drain has run as many jobs as it may, and there are more: one that enqueues itself, perhaps. */
export class DrainLimitError extends Error {
  override readonly name = 'DrainLimitError';

  constructor(limit: number, codes: string[]) {
    super(
      `${limit} runs, and the queue is not empty: does a job enqueue itself (the last ones: ${codes.join(', ')})? Else drain({ limit })`,
    );
  }
}

/** A test has left something behind. */
export class TestLeakError extends Error {
  override readonly name = 'TestLeakError';

  constructor(readonly leaks: string[]) {
    super(`the test has left behind: ${leaks.join('; ')}`);
  }
}
