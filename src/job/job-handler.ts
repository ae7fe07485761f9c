import type { EntityManager } from 'typeorm';
import type { Duration } from './duration.js';
import type { JsonValue } from './json.js';

/**
 * Runs jobs. `runJob` gets the validated context. Its return value is stored as the run's output (SUCCEEDED), an error
 * that it throws as the run's error (FAILED).
 */
export interface JobHandler<Context = any, Result = unknown> {
  runJob(context: Context, job: JobExecution): Promise<Result> | Result;
}

/** A class decorated with `@BildadJob`. */
export type JobHandlerClass<H extends JobHandler = JobHandler> = new (...args: any[]) => H;

/** The type that a handler returns, or resolves to. */
export type ResultOf<H> = H extends { runJob(...args: never[]): infer R } ? Awaited<R> : unknown;

/** The context type that a handler class takes. */
export type ContextOf<H> = H extends { runJob(context: infer C, ...rest: any[]): unknown }
  ? C
  : never;

/**
 * Where a handler runs: `inline` in the app's process, `thread` in a worker thread, `process` in a separate process.
 * Handlers in threads and processes can be killed.
 */
export type Isolation = 'inline' | 'thread' | 'process';

/** Hosts are threads and processes that have booted the app's module. Each runs one job at a time. */
export type HostKind = Exclude<Isolation, 'inline'>;

export const ISOLATIONS: readonly Isolation[] = ['inline', 'thread', 'process'];

/** The template of a run. */
export interface ExecutionTemplate {
  id: string;
  code: string;
}

export type LogLevel = 'log' | 'warn' | 'error' | 'debug' | 'verbose' | 'fatal';

/** Compatible with Nest's `LoggerService`. */
export type ExecutionLogger = {
  [Level in LogLevel]: (message: unknown, ...more: unknown[]) => void;
};

/** The current run, passed to the handler. */
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
   * Nest's logger under this job's name. By default its last lines are stored with the run if it fails; see the module
   * option `logs`. It can be used as a `LoggerService`.
   */
  readonly logger: ExecutionLogger;
  /**
   * The transaction of a `transactional` handler. Everything that is written with it, the jobs that are enqueued in the
   * run, the run's end and the removal of its entry are committed together when the handler returns.
   * @throws BildadConfigError when the job is not `transactional`
   */
  readonly manager: EntityManager;
  /**
   * Ends the run as SUCCEEDED in the handler's own transaction, so that both commit together. Call it as the last
   * statement of the transaction, because it locks the run's row. If the transaction commits, what the handler returns
   * later is ignored; if it rolls back, the call has no effect.
   * @param output stored as the run's output
   * @throws RunNotActiveError when the run has ended already: let the transaction roll back.
   *   BildadConfigError when the job is `transactional`: then the engine ends the run
   */
  complete(manager: EntityManager, output?: unknown): Promise<void>;
  /**
   * Reports progress: `fraction` from 0 to 1, `message` up to 1,000 characters. Each call emits `run.progress`. The
   * latest progress is written within 100 ms, then at most twice a second, and not after the run has succeeded. Never
   * throws or blocks.
   */
  progress(fraction: number, message?: string): void;
  /**
   * Sends a chunk of output, up to 16,000 characters of JSON, to the watchers of the job (`JobsService.watch`), in order.
   * Later watchers get the last 64 kB. Nothing is written without watchers. Never throws or blocks: watchers see a gap
   * for chunks that could not be sent.
   */
  stream(chunk: JsonValue): void;
  /**
   * Snoozes the job by throwing a `SnoozeError`: the run ends, and the job is AVAILABLE again after the delay. It does not
   * use up a retry.
   * @param why stored with the run
   * @throws SnoozeError always; BildadConfigError when `delay` is not a duration
   */
  snooze(delay: Duration, why?: string): never;
  /**
   * Cancels the job by throwing a `JobCancelledError`: the run ends as cancelled, with this reason, and is not retried.
   * @throws JobCancelledError always
   */
  cancel(reason: string): never;
  /** Short for `logger.log`. */
  log(message: string): void;
}
