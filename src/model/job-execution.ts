import type { Duration } from './duration.js';

/** The template a run was made from, as much of it as a handler needs. */
export interface ExecutionTemplate {
  id: string;
  code: string;
}

export interface ExecutionLogger {
  log(message: string): void;
  warn(message: string): void;
  error(message: string): void;
  debug(message: string): void;
}

/** What a handler knows about the run it carries out. */
export interface JobExecution {
  readonly jobRunIdentifier: string;
  readonly jobRunId: string;
  readonly template: ExecutionTemplate;
  /** 0 for the first run, 1 for the first retry. */
  readonly retry: number;
  /** 1 for the first run. */
  readonly attempt: number;
  /** Aborts on timeout, kill, cancel and shutdown; `signal.reason` says which. */
  readonly signal: AbortSignal;
  /** When the run times out, by the database's clock. */
  readonly deadline: Date;
  readonly logger: ExecutionLogger;
  /** `fraction` from 0 to 1; published as a `run.progress` event. */
  progress(fraction: number, message?: string): void;
  /**
   * Puts the job off by throwing a `SnoozeError`: its run ends, and it is AVAILABLE again after the delay. No retry is
   * spent. @param why kept with the run @throws SnoozeError always; BildadConfigError when `delay` is no duration
   */
  snooze(delay: Duration, why?: string): never;
  /** Gives the job up for good by throwing a `JobCancelledError`: its run ends as cancelled, with this reason. @throws JobCancelledError always */
  cancel(reason: string): never;
  /** A line in the log under this job's name. */
  log(message: string): void;
}
