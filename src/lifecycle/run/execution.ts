import type { Duration } from '../../job/duration.js';
import type { EntityManager } from 'typeorm';
import { BildadConfigError } from '../../job/errors.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { JsonValue } from '../../job/json.js';
import type { ExecutionLogger, ExecutionTemplate, JobExecution } from '../../job/job-handler.js';
import { JobCancelledError, SnoozeError } from '../../job/handler-signals.js';
import type { JobProcess } from './job-process.js';
import { toChunk, toProgress } from './handler-output.js';
import type { StoredContexts } from '../../context/stored-contexts.js';
import type { JobTransactions } from './transactional.js';

/** A run as its handler sees it. What few handlers look at is made when they do: an AbortSignal alone takes longer than a job without work. */
export class Execution implements JobExecution {
  /** Of a handler that is transactional, while it runs. */
  transaction: EntityManager | undefined;
  private lines: ExecutionLogger | undefined;

  constructor(
    private readonly process: JobProcess,
    private readonly events: JobEvents,
    private readonly loggerFor: (run: ClaimedRun) => ExecutionLogger,
    private readonly transactions: Pick<JobTransactions, 'complete'>,
    /** Of a job whose result is encrypted. */
    private readonly secrets: StoredContexts | undefined,
  ) {}

  get jobRunIdentifier(): string {
    return this.run.jobRunIdentifier;
  }

  get jobRunId(): string {
    return this.run.jobRunId;
  }

  get template(): ExecutionTemplate {
    return { id: this.run.jobTemplateId, code: this.run.templateCode };
  }

  get retry(): number {
    return this.run.retry;
  }

  get attempt(): number {
    return this.run.retry + 1;
  }

  get signal(): AbortSignal {
    return this.process.signal;
  }

  get deadline(): Date {
    return new Date(this.run.timeoutAtMs);
  }

  get logger(): ExecutionLogger {
    return (this.lines ??= this.loggerFor(this.run));
  }

  get manager(): EntityManager {
    if (this.transaction) return this.transaction;
    throw new BildadConfigError(
      'job.manager',
      `is only available in a transactional job: declare @BildadJob({ code: '${this.run.templateCode}', transactional: true })`,
    );
  }

  async complete(manager: EntityManager, output?: unknown): Promise<void> {
    if (this.transaction)
      throw new BildadConfigError(
        'job.complete()',
        'cannot be called in a transactional job: return the result instead',
      );
    const { secrets, transactions } = this;
    const stored = secrets ? secrets.sealResult(output, this.jobRunIdentifier) : output;
    await transactions.complete(this.process, manager, stored);
  }

  // Arrows: handlers pass these two on by themselves.
  readonly progress = (fraction: number, message?: string): void =>
    progressed(
      this.process,
      this.events,
      // It would stand in tables and events as it is.
      toProgress(fraction, this.secrets ? undefined : message),
    );

  readonly log = (message: string): void => this.logger.log(message);

  /** A getter: most jobs need no such function. */
  get stream(): (chunk: JsonValue) => void {
    return (chunk) => streamed(this.run, this.events, toChunk(chunk));
  }

  snooze(delay: Duration, why?: string): never {
    throw new SnoozeError(delay, why);
  }

  cancel(reason: string): never {
    throw new JobCancelledError(reason);
  }

  private get run(): ClaimedRun {
    return this.process.run;
  }
}

export function progressed(
  process: JobProcess,
  events: JobEvents,
  told: { fraction: number; message?: string },
): void {
  const { fraction, message } = told;
  process.progress = { fraction, message: message ?? null, at: new Date() };
  events.emit('run.progress', {
    ...identityOf(process.run),
    fraction,
    message,
  });
}

export const streamed = (run: ClaimedRun, events: JobEvents, chunk: JsonValue | undefined): void =>
  events.emit('run.stream', { ...identityOf(run), chunk });

export function identityOf({ jobRunId, jobRunIdentifier, templateCode, retry }: ClaimedRun) {
  return { jobRunId, jobRunIdentifier, templateCode, retry };
}
