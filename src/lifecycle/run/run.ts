import { setMaxListeners } from 'node:events';
import { JobHandlerNotFoundError, JobNotAvailableError } from '../../job/errors.js';
import { envelopeOf, isSecret } from '../../context/envelope.js';
import type { EntryFate, JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { Outcome } from '../../job/outcome.js';
import type { ContextContract } from '../../context/context-contract.js';
import { redacted } from '../../context/redaction.js';
import type { HandlerRegistry } from '../handler-registry.js';
import { JobProcess } from './job-process.js';
import type { ProcessRegistry } from './process-registry.js';
import { ConnectionLostError, isUnknown } from '../../database/connection/connection-errors.js';
import type { Launched } from './execute-handler.js';
import { identityOf } from './execution.js';
import type { FinishRuns } from '../finish/finish.js';
import type { InlineJobs } from './inline.js';
import type { IsolatedJobs } from './isolated.js';
import type { WrappedRuns } from './runnable-check.js';
import { waitBeforeRetry } from './retry-delay.js';

/** Claimed runs become processes here, and each process's outcome goes to the finish. */
export class RunJobs {
  /** By run: processes that hold a slot, and those whose end is not in the database yet. */
  private readonly lives = new Map<string, JobProcess>();
  private readonly unrecorded = new Set<JobProcess>();
  private readonly giveUp = new AbortController();

  constructor(
    private readonly handlers: HandlerRegistry<ContextContract>,
    private readonly processes: ProcessRegistry,
    private readonly finishRuns: FinishRuns,
    private readonly events: JobEvents,
    private readonly inline: InlineJobs,
    private readonly isolated: IsolatedJobs,
    private readonly wrapped: WrappedRuns,
  ) {
    // One for each outcome that waits for the database to come back.
    setMaxListeners(0, this.giveUp.signal);
  }

  /**
   * Resolves when the handler has been started.
   * @throws InvalidJobContextError, InvalidJobSchemaError, JobHandlerNotFoundError, JobNotAvailableError
   */
  launch(run: ClaimedRun): Promise<void> {
    return new Promise((resolve, reject) => {
      let told = false;
      const begun = this.begin(run, (refused) => {
        if (told) return;
        told = true;
        if (!refused) return resolve();
        const life = this.lives.get(run.jobRunId);
        if (life) life.recorded.listen(() => reject(refused));
        else reject(refused);
      });
      if (!begun)
        reject(new JobNotAvailableError(run.jobRunIdentifier, 'its process runs already'));
    });
  }

  /**
   * The run's process holds a slot from here on. A context that is invalid by now ends the run without its
   * handler, whatever `maxRetries` is: it would fail every time. The check is part of the process, so that
   * timeout, kill and heartbeat cover a validator that hangs.
   * @returns false when the run has a process already, which goes on
   */
  begin(run: ClaimedRun, launched?: Launched): boolean {
    const handler = this.handlers.get(run.templateCode);
    if (!handler) {
      void this.giveBack(run, launched);
      return true;
    }
    const envelope = envelopeOf(run.jobContext);
    const unable = envelope && this.wrapped.unable(run, envelope, handler.traits);
    if (unable) {
      void this.putBack(run, unable, launched);
      return true;
    }
    const process = new JobProcess(run, handler.isolation);
    if (this.lives.has(run.jobRunId) || !this.processes.add(process)) return false;
    // Before it starts and anybody hears of it: a listener may kill it at once.
    this.follow(process);
    if (launched) process.decided.listen(() => launched());
    if (handler.isolation === 'inline') this.inline.carryOut(process, handler, launched);
    else void this.isolated.carryOut(process, handler.isolation, launched);
    return true;
  }

  private async putBack(
    run: ClaimedRun,
    unable: Parameters<WrappedRuns['putBack']>[1],
    launched?: Launched,
  ): Promise<void> {
    try {
      await this.wrapped.putBack(run, unable);
    } catch (error) {
      this.events.emit('engine.error', {
        doing: `putting back run ${run.jobRunId}`,
        error,
      });
    }
    launched?.(unable);
  }

  private async giveBack(run: ClaimedRun, launched?: Launched): Promise<void> {
    try {
      await this.finishRuns.finish(run, { kind: 'interrupted' });
    } catch (error) {
      return launched?.(error as Error);
    }
    launched?.(new JobHandlerNotFoundError(run.templateCode));
  }

  /** What becomes of the entry of a run on this node, null when somebody else ended the run; undefined when it is not here. */
  endOf(jobRunId: string): Promise<EntryFate | null> | undefined {
    return this.lives.get(jobRunId)?.recorded.promise;
  }

  /** The runs this node answers for. */
  held(): ClaimedRun[] {
    return Array.from(this.lives.values(), ({ run }) => run);
  }

  /** Outcomes that wait to be recorded. */
  get backlog(): number {
    return this.unrecorded.size;
  }

  /** Resolves when every outcome known so far has been recorded, or given up. */
  async recorded(): Promise<void> {
    await Promise.all([...this.unrecorded].map(({ recorded }) => recorded.promise));
  }

  /** Stops trying to record outcomes: the leases will do the rest. */
  stopRecording(): void {
    this.giveUp.abort();
  }

  /** The slot is free as soon as the handler has ended; its outcome is recorded meanwhile. */
  private follow(process: JobProcess): void {
    this.lives.set(process.jobRunId, process);
    process.decided.listen((outcome) => {
      this.unrecorded.add(process);
      void this.record(process, outcome);
      if (process.isSettled) this.processes.remove(process);
      else void this.outlive(process, outcome);
    });
  }

  /** An abandoned handler keeps its slot until it ends, so that a node is not overrun by what it cannot stop. */
  private async outlive(process: JobProcess, { kind }: Outcome): Promise<void> {
    await process.recorded.promise;
    this.events.emit('process.abandoned', {
      ...identityOf(process.run),
      outcome: kind,
    });
    await process.settled;
    this.lives.delete(process.jobRunId);
    this.events.emit('process.ended', identityOf(process.run));
    this.processes.remove(process);
  }

  /** An outcome is decided once; while the database is away it waits. Never rejects. */
  private async record(process: JobProcess, ended: Outcome): Promise<void> {
    const { run } = process;
    const outcome =
      ended.kind !== 'completed' && isSecret(run, this.handlers.get(run.templateCode)?.traits)
        ? redacted(ended)
        : ended;
    // A fence that came after the commit was too late.
    const fate =
      process.fenced && !process.written
        ? this.lose(process, outcome)
        : await this.finish(process, outcome);
    this.unrecorded.delete(process);
    if (process.isSettled) this.lives.delete(process.jobRunId);
    process.recorded.fire(fate);
  }

  /** The run is somebody else's, who may carry it out under the same number. */
  private lose({ run }: JobProcess, outcome: Outcome): null {
    this.finishRuns.rejectFinish(run, outcome);
    return null;
  }

  private async finish(process: JobProcess, outcome: Outcome): Promise<EntryFate | null> {
    try {
      const { run, written } = process;
      return await (written
        ? this.finishRuns.finish(run, outcome, { written })
        : this.finishRuns.finish(run, outcome));
    } catch (error) {
      return this.recordLater(process, outcome, error);
    }
  }

  private async recordLater(
    process: JobProcess,
    outcome: Outcome,
    firstError: unknown,
  ): Promise<EntryFate | null> {
    let error = firstError;
    let isRetry = false;
    for (let attempt = 0; ; attempt++) {
      isRetry ||= isUnknown(error);
      // That the database is away is told elsewhere, once.
      if (attempt === 0 || !(error instanceof ConnectionLostError))
        this.events.emit('engine.error', {
          doing: `recording the end of run ${process.jobRunId}`,
          error,
        });
      if (!(await waitBeforeRetry(attempt, this.giveUp.signal))) return null;
      try {
        const { run, written } = process;
        return await this.finishRuns.finish(run, outcome, { isRetry, written });
      } catch (nextError) {
        error = nextError;
      }
    }
  }
}
