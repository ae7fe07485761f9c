import { setTimeout as pause } from 'node:timers/promises';
import {
  InvalidJobContextError,
  JobHandlerNotFoundError,
  JobNotAvailableError,
} from '../model/errors.js';
import type { EntryFate, JobEvents } from '../model/events.js';
import type { ClaimedRun } from '../model/facts.js';
import type { ExecutionLogger, JobExecution } from '../model/job-execution.js';
import type { Outcome } from '../model/outcome.js';
import { narrowed, type ContextContract } from '../policy/context.js';
import type {
  HandlerRegistry,
  RegisteredHandler,
} from '../runner/handler-registry.js';
import { JobProcess } from '../runner/job-process.js';
import type { ProcessRegistry } from '../runner/process-registry.js';
import type { FinishDoor } from './finish.js';

const FIRST_PAUSE_MS = 50;
const LONGEST_PAUSE_MS = 1_000;

/** Claimed runs become processes here, and each process's outcome goes to the finish. */
export class RunJobs {
  /** By run: processes that hold a slot, and those whose end is not in the database yet. */
  private readonly ends = new Map<string, Promise<EntryFate | null>>();
  private readonly unrecorded = new Set<Promise<EntryFate | null>>();
  private readonly giveUp = new AbortController();

  constructor(
    private readonly handlers: HandlerRegistry<ContextContract>,
    private readonly processes: ProcessRegistry,
    private readonly door: FinishDoor,
    private readonly events: JobEvents,
    private readonly loggerFor: (run: ClaimedRun) => ExecutionLogger,
  ) {}

  /**
   * Resolves when the handler has been started. A context that is invalid by now ends the run without
   * that, whatever `maxRetries` is: it would fail every time. The check is part of the process, so that
   * timeout, kill and heartbeat cover a validator that hangs.
   * @throws InvalidJobContextError, InvalidJobSchemaError, JobHandlerNotFoundError, JobNotAvailableError
   */
  async launch(run: ClaimedRun): Promise<JobProcess> {
    const handler = this.handlers.get(run.templateCode);
    if (!handler) {
      await this.door.finish(run, { kind: 'interrupted' });
      throw new JobHandlerNotFoundError(run.templateCode);
    }
    const process = new JobProcess(run);
    if (this.ends.has(run.jobRunId) || !this.processes.add(process))
      throw new JobNotAvailableError(
        run.jobRunIdentifier,
        'its process runs already',
      );
    const refused = await new Promise<Error | undefined>((launched) => {
      process.start(() => this.work(process, handler, launched));
      // Before anybody hears of it: a listener may kill it at once.
      void this.conclude(process);
      void process.outcome.then(() => launched(undefined));
    });
    if (!refused) return process;
    await this.ends.get(run.jobRunId);
    throw refused;
  }

  /** Says by `launched` that the handler runs, or why it does not. */
  private async work(
    process: JobProcess,
    handler: RegisteredHandler<ContextContract>,
    launched: (refused?: Error) => void,
  ): Promise<Outcome> {
    const { operatorSchema, templateCode, jobContext } = process.run;
    let context: unknown;
    try {
      context = await narrowed(
        handler.contract,
        operatorSchema,
        templateCode,
      ).decode(jobContext);
    } catch (error) {
      launched(error as Error);
      return error instanceof InvalidJobContextError
        ? { kind: 'invalidContext', error }
        : { kind: 'failed', error };
    }
    process.signal.throwIfAborted();
    const instance = await handler.resolve();
    this.events.emit('run.started', identityOf(process.run));
    launched();
    const output = await instance.runJob(context, this.executionOf(process));
    return { kind: 'completed', output };
  }

  /** What becomes of the entry of a run on this node, null when somebody else ended the run; undefined when it is not here. */
  endOf(jobRunId: string): Promise<EntryFate | null> | undefined {
    return this.ends.get(jobRunId);
  }

  /** The runs this node answers for. */
  runIds(): string[] {
    return [...this.ends.keys()];
  }

  /** Outcomes that wait to be recorded. */
  get backlog(): number {
    return this.unrecorded.size;
  }

  /** Resolves when every outcome known so far has been recorded, or given up. */
  async recorded(): Promise<void> {
    await Promise.all(this.unrecorded);
  }

  /** Stops trying to record outcomes: the leases will do the rest. */
  stopRecording(): void {
    this.giveUp.abort();
  }

  /** The slot is free as soon as the handler has ended; its outcome is recorded meanwhile. Never rejects. */
  private async conclude(process: JobProcess): Promise<void> {
    const end = process.outcome.then((outcome) =>
      this.record(process, outcome),
    );
    this.ends.set(process.jobRunId, end);
    try {
      await process.outcome;
      this.unrecorded.add(end);
      void end.then(() => this.unrecorded.delete(end));
      if (!process.isSettled) await this.outlive(process, end);
    } finally {
      this.processes.remove(process);
    }
    await end;
    this.ends.delete(process.jobRunId);
  }

  /** An abandoned handler keeps its slot until it ends, so that a node is not overrun by what it cannot stop. */
  private async outlive(
    process: JobProcess,
    end: Promise<unknown>,
  ): Promise<void> {
    const { kind } = await process.outcome;
    await end;
    this.events.emit('process.abandoned', {
      ...identityOf(process.run),
      outcome: kind,
    });
    await process.settled;
    this.events.emit('process.ended', identityOf(process.run));
  }

  /** An outcome is decided once; while the database is away it waits. */
  private async record(
    process: JobProcess,
    outcome: Outcome,
  ): Promise<EntryFate | null> {
    for (let attempt = 0; ; attempt++)
      try {
        return await this.door.finish(process.run, outcome);
      } catch (error) {
        this.events.emit('engine.error', {
          doing: `recording the end of run ${process.jobRunId}`,
          error,
        });
        if (!(await this.patience(attempt))) return null;
      }
  }

  private async patience(attempt: number): Promise<boolean> {
    const longest = Math.min(FIRST_PAUSE_MS * 2 ** attempt, LONGEST_PAUSE_MS);
    try {
      await pause(longest * (0.5 + Math.random() / 2), undefined, {
        signal: this.giveUp.signal,
      });
      return true;
    } catch {
      return false;
    }
  }

  private executionOf(process: JobProcess): JobExecution {
    const { run } = process;
    const logger = this.loggerFor(run);
    return {
      jobRunIdentifier: run.jobRunIdentifier,
      jobRunId: run.jobRunId,
      template: { id: run.jobTemplateId, code: run.templateCode },
      retry: run.retry,
      attempt: run.retry + 1,
      signal: process.signal,
      deadline: run.timeoutAt,
      logger,
      progress: (fraction, message) =>
        this.events.emit('run.progress', {
          ...identityOf(run),
          // A handler's arithmetic must not fail its job.
          fraction: Math.min(Math.max(Number(fraction) || 0, 0), 1),
          ...(message !== undefined && { message: String(message) }),
        }),
      log: (message) => logger.log(message),
    };
  }
}

function identityOf({
  jobRunId,
  jobRunIdentifier,
  templateCode,
  retry,
}: ClaimedRun) {
  return { jobRunId, jobRunIdentifier, templateCode, retry };
}
