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
import type { InlineJobs, Launched } from './execute-handler.js';
import { identityOf } from './execution.js';
import type { FinishRuns } from '../finish/finish-runs.js';
import type { IsolatedJobs } from './isolated.js';
import type { RunnableCheck } from './runnable-check.js';
import { waitBeforeRetry } from '../../concurrency/timers.js';

/**
 * The stages of a claimed run on this node: launch, execute the handler (`InlineJobs`, `IsolatedJobs`), settle the
 * process (`JobProcess`), record its outcome, finish the run (`FinishRuns`).
 */
export class RunJobs {
  /** By run: processes that hold a slot, and processes whose outcome is not recorded yet. */
  private readonly active = new Map<string, JobProcess>();
  private readonly unrecorded = new Set<JobProcess>();
  private readonly giveUp = new AbortController();

  constructor(
    private readonly handlers: HandlerRegistry<ContextContract>,
    private readonly processes: ProcessRegistry,
    private readonly finishRuns: FinishRuns,
    private readonly events: JobEvents,
    private readonly inline: InlineJobs,
    private readonly isolated: IsolatedJobs,
    private readonly runnable: RunnableCheck,
  ) {
    // One listener for each outcome that waits for the database.
    setMaxListeners(0, this.giveUp.signal);
  }

  /**
   * Resolves when the handler has been started.
   * @throws InvalidJobContextError, InvalidJobSchemaError, JobHandlerNotFoundError, JobNotAvailableError
   */
  launch(run: ClaimedRun): Promise<void> {
    return new Promise((resolve, reject) => {
      let isLaunched = false;
      const isNew = this.start(run, (refused) => {
        if (isLaunched) return;
        isLaunched = true;
        if (!refused) return resolve();
        const process = this.active.get(run.jobRunId);
        if (process) process.recorded.listen(() => reject(refused));
        else reject(refused);
      });
      if (!isNew)
        reject(new JobNotAvailableError(run.jobRunIdentifier, 'its process runs already'));
    });
  }

  /**
   * Starts the process of a run, which holds a slot from here on. An invalid context fails the run without its handler
   * and without a retry, because every retry would fail too. The check is part of the process, so timeout, kill and
   * heartbeat cover a validator that hangs.
   * @returns false when the run has a process already, which continues
   */
  start(run: ClaimedRun, launched?: Launched): boolean {
    const handler = this.handlers.get(run.templateCode);
    if (!handler) {
      void this.interrupt(run, launched);
      return true;
    }
    const envelope = envelopeOf(run.jobContext);
    const error = envelope && this.runnable.findError(run, envelope, handler.traits);
    if (error) {
      void this.runnable.release(run, error).then(() => launched?.(error));
      return true;
    }
    const process = new JobProcess(run, handler.isolation);
    if (this.active.has(run.jobRunId) || !this.processes.add(process)) return false;
    // Registered before it starts, because a listener of its start may kill it at once.
    this.recordWhenDecided(process);
    if (launched) process.decided.listen(() => launched());
    if (handler.isolation === 'inline') this.inline.execute(process, handler, launched);
    else void this.isolated.execute(process, handler.isolation, launched);
    return true;
  }

  /** This node has no handler for the run any more. */
  private async interrupt(run: ClaimedRun, launched?: Launched): Promise<void> {
    try {
      await this.finishRuns.finish(run, { kind: 'interrupted' });
    } catch (error) {
      return launched?.(error as Error);
    }
    launched?.(new JobHandlerNotFoundError(run.templateCode));
  }

  /** @returns what happens to the entry of a run of this node, null when the run ended elsewhere; undefined for other runs */
  fateOf(jobRunId: string): Promise<EntryFate | null> | undefined {
    return this.active.get(jobRunId)?.recorded.promise;
  }

  /** The runs whose leases this node renews. */
  heldRuns(): ClaimedRun[] {
    return Array.from(this.active.values(), ({ run }) => run);
  }

  /** Number of outcomes that wait to be recorded. */
  get backlog(): number {
    return this.unrecorded.size;
  }

  /** Resolves when every outcome known so far has been recorded or given up. */
  async waitForRecords(): Promise<void> {
    await Promise.all([...this.unrecorded].map(({ recorded }) => recorded.promise));
  }

  /** Stops trying to record outcomes: the leases of their runs expire. */
  stopRecording(): void {
    this.giveUp.abort();
  }

  /** The slot is free as soon as the handler has ended; its outcome is recorded meanwhile. */
  private recordWhenDecided(process: JobProcess): void {
    this.active.set(process.jobRunId, process);
    process.decided.listen((outcome) => {
      this.unrecorded.add(process);
      void this.record(process, outcome);
      if (process.isSettled) this.processes.remove(process);
      else void this.waitForAbandoned(process, outcome);
    });
  }

  /** An abandoned handler keeps its slot until it ends, so that a node does not run more handlers than it has slots. */
  private async waitForAbandoned(process: JobProcess, { kind }: Outcome): Promise<void> {
    await process.recorded.promise;
    this.events.emit('process.abandoned', { ...identityOf(process.run), outcome: kind });
    await process.settled;
    this.active.delete(process.jobRunId);
    this.events.emit('process.ended', identityOf(process.run));
    this.processes.remove(process);
  }

  /** Records an outcome, and retries while the database is unreachable. Never rejects. */
  private async record(process: JobProcess, decided: Outcome): Promise<void> {
    const { run } = process;
    const outcome =
      decided.kind !== 'completed' && isSecret(run, this.handlers.get(run.templateCode)?.traits)
        ? redacted(decided)
        : decided;
    let fate: EntryFate | null = null;
    // Another node may run a fenced run under the same number. A fence after the commit has no effect.
    if (process.isFenced && !process.written) this.finishRuns.rejectFinish(run, outcome);
    else fate = await this.finish(process, outcome);
    this.unrecorded.delete(process);
    if (process.isSettled) this.active.delete(process.jobRunId);
    process.recorded.fire(fate);
  }

  private async finish(process: JobProcess, outcome: Outcome): Promise<EntryFate | null> {
    try {
      const { run, written } = process;
      return await (written
        ? this.finishRuns.finish(run, outcome, { written })
        : this.finishRuns.finish(run, outcome));
    } catch (error) {
      return this.finishLater(process, outcome, error);
    }
  }

  private async finishLater(
    process: JobProcess,
    outcome: Outcome,
    firstError: unknown,
  ): Promise<EntryFate | null> {
    let error = firstError;
    let isRetry = false;
    for (let attempt = 0; ; attempt++) {
      isRetry ||= isUnknown(error);
      // `database.lost` reports an unreachable database, once.
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
