import type { EntityManager } from 'typeorm';
import type { Duration } from './duration.js';
import type { JsonValue } from './json.js';

/** The template a run was made from, as much of it as a handler needs. */
export interface ExecutionTemplate {
  id: string;
  code: string;
}

export type LogLevel = 'log' | 'warn' | 'error' | 'debug' | 'verbose' | 'fatal';

/** As Nest's `LoggerService` has it. */
export type ExecutionLogger = {
  [Level in LogLevel]: (message: unknown, ...more: unknown[]) => void;
};

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
  /**
   * Nest's logger under this job's name. What it is told is kept with the run as well, by the module's option `logs`: its
   * last lines, where the run fails. It fits where a `LoggerService` is asked for.
   */
  readonly logger: ExecutionLogger;
  /**
   * The handler's transaction, of a job that is `transactional`: what is written with it, each job that is enqueued
   * meanwhile, the run's end and its entry's removal are committed together when the handler returns, or none of it.
   * @throws BildadConfigError where the job is not `transactional`
   */
  readonly manager: EntityManager;
  /**
   * Ends the run as SUCCEEDED in a transaction of the handler's own: with it commits, or does not, that the job is
   * done. To be the last statement of the transaction: from here on the run's row is locked. What the handler returns
   * later is dropped if the transaction was committed, else counts as if this had not been called.
   * @param output kept as the run's output, as what a handler returns is
   * @throws RunNotActiveError when the run was ended by somebody else: let the transaction roll back.
   *   BildadConfigError where the job is `transactional`: there the engine does it
   */
  complete(manager: EntityManager, output?: unknown): Promise<void>;
  /**
   * How far it is: `fraction` from 0 to 1, `message` up to 1,000 characters. Told as `run.progress` each time, and
   * written within a tenth of a second, then twice a second at the most, the last one in any case; of a run that has
   * succeeded by then nothing is. Never throws, and waits for nothing.
   */
  progress(fraction: number, message?: string): void;
  /**
   * Output as it comes: a text, or JSON, up to 16,000 characters of JSON. It goes to those who watch the job
   * (`JobsService.watch`), in order; who comes later gets the last 64 kB. Nothing is written while nobody watches. Never
   * throws, and waits for nothing: what cannot be sent is a gap.
   */
  stream(chunk: JsonValue): void;
  /**
   * Puts the job off by throwing a `SnoozeError`: its run ends, and it is AVAILABLE again after the delay. No retry is
   * spent. @param why kept with the run @throws SnoozeError always; BildadConfigError when `delay` is no duration
   */
  snooze(delay: Duration, why?: string): never;
  /** Gives the job up for good by throwing a `JobCancelledError`: its run ends as cancelled, with this reason. @throws JobCancelledError always */
  cancel(reason: string): never;
  /** `logger.log`: a line in the log under this job's name, kept with the run where that fails. */
  log(message: string): void;
}
