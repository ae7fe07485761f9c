import type { JobExecution } from './job-execution.js';

/**
 * A job's code. `runJob` gets the validated context; what it returns is kept as the run's output
 * (SUCCEEDED), what it throws as the run's error (FAILED).
 */
export interface JobHandler<Context = any, Result = unknown> {
  runJob(context: Context, job: JobExecution): Promise<Result> | Result;
}

/** A class decorated with `@BildadJob`. */
export type JobHandlerClass<H extends JobHandler = JobHandler> = new (...args: any[]) => H;

/** What a handler returns, in the end. */
export type ResultOf<H> = H extends {
  runJob(...args: never[]): infer R;
}
  ? Awaited<R>
  : unknown;

/** The context type that a handler class takes. */
export type ContextOf<H> = H extends {
  runJob(context: infer C, ...rest: any[]): unknown;
}
  ? C
  : never;
