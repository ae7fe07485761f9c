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

/**
 * A run as its handler sees it. Objects that few handlers read are created lazily: an AbortSignal alone takes longer
 * than a job without work.
 */
export class Execution implements JobExecution {
  /** The transaction of a transactional handler, while it runs. */
  transaction: EntityManager | undefined;
  private runLogger: ExecutionLogger | undefined;

  constructor(
    private readonly process: JobProcess,
    private readonly events: JobEvents,
    private readonly loggerFor: (run: ClaimedRun) => ExecutionLogger,
    private readonly transactions: Pick<JobTransactions, 'complete'>,
    /** Seals the result; undefined: it is not encrypted. */
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
    return (this.runLogger ??= this.loggerFor(this.run));
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

  // Arrow functions, because handlers pass these two on as callbacks.
  readonly progress = (fraction: number, message?: string): void =>
    recordProgress(
      this.process,
      this.events,
      // Tables and events would hold the message in plain text.
      toProgress(fraction, this.secrets ? undefined : message),
    );

  readonly log = (message: string): void => this.logger.log(message);

  /** A getter: most jobs need no such function. */
  get stream(): (chunk: JsonValue) => void {
    return (chunk) => emitChunk(this.run, this.events, toChunk(chunk));
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

export function recordProgress(
  process: JobProcess,
  events: JobEvents,
  { fraction, message }: { fraction: number; message?: string },
): void {
  process.progress = { fraction, message: message ?? null, at: new Date() };
  events.emit('run.progress', {
    ...identityOf(process.run),
    fraction,
    message,
  });
}

export const emitChunk = (run: ClaimedRun, events: JobEvents, chunk: JsonValue | undefined): void =>
  events.emit('run.stream', { ...identityOf(run), chunk });

export function identityOf({ jobRunId, jobRunIdentifier, templateCode, retry }: ClaimedRun) {
  return { jobRunId, jobRunIdentifier, templateCode, retry };
}
