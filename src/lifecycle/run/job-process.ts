import { JobKilledError, JobTimeoutError } from '../../job/errors.js';
import type { EntryFate } from '../../job/events.js';
import { processName, type ClaimedRun } from '../../job/run-facts.js';
import type { Isolation } from '../../job/job-handler.js';
import type { Outcome } from '../../job/outcome.js';
import type { JobProgress } from '../../job/process-facts.js';
import { OneTimeEvent } from '../../concurrency/one-time-event.js';

/** Why a process must stop. It becomes the run's outcome, except as `JobProcess` documents. */
export type StopReason = Extract<
  Outcome,
  { kind: 'timedOut' | 'killed' | 'cancelled' | 'interrupted' | 'failed' }
>;

/** Outcomes of a handler that stand although a shutdown interrupts it. */
const KEPT_ON_SHUTDOWN: ReadonlySet<Outcome['kind']> = new Set([
  'completed',
  'failedForGood',
  'snoozed',
  'cancelled',
]);

/** The end of a run that completed, as a transaction of its handler wrote it. */
export interface WrittenEnd {
  output: unknown;
  /**
   * What happened to the entry; null: the run had ended before. Undefined while it is not known whether the transaction
   * was committed.
   */
  fate?: EntryFate | null;
}

/**
 * A run on this node while its handler works, and until its outcome is recorded.
 *
 * It is registered, its handler works, it settles. `stop` aborts its signal, and the stop reason becomes the outcome
 * whatever the handler does. One exception: a handler that a shutdown interrupts may still complete, snooze, cancel or
 * fail for good. A handler that does not settle within the grace period is abandoned: the outcome is decided without it,
 * and the process keeps its slot until the handler ends. The outcome is decided once.
 */
export class JobProcess {
  /** The outcome, decided with or without the handler. */
  readonly decided = new OneTimeEvent<Outcome>();
  /** The end is in the database: what happened to the entry, or null when the run had ended elsewhere. */
  readonly recorded = new OneTimeEvent<EntryFate | null>();
  private readonly startedTick = performance.now();
  private readonly ended = new OneTimeEvent<void>();
  private controller?: AbortController;
  private abortReason?: Error;
  private requestedStop?: StopReason;
  private fenced = false;

  /** The end that a transaction of the handler wrote, as far as is known. */
  written: WrittenEnd | undefined;

  /** The last progress that the handler reported. */
  progress: JobProgress | null = null;

  /** @param isolation where the handler runs */
  constructor(
    readonly run: ClaimedRun,
    readonly isolation: Isolation = 'inline',
  ) {}

  /** Unique among all runs: the identifier and the retry number. */
  get name(): string {
    return processName(this.run);
  }

  get jobRunId(): string {
    return this.run.jobRunId;
  }

  get jobRunIdentifier(): string {
    return this.run.jobRunIdentifier;
  }

  get startedAt(): Date {
    return new Date(performance.timeOrigin + this.startedTick);
  }

  /** Milliseconds since it was created, by the monotonic clock. */
  get ageMs(): number {
    return performance.now() - this.startedTick;
  }

  /** Aborts when the process must stop. */
  get signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.abortReason) this.controller.abort(this.abortReason);
    }
    return this.controller.signal;
  }

  get isStopping(): boolean {
    return this.abortReason !== undefined;
  }

  /** @throws the signal's reason when the process must stop */
  throwIfStopping(): void {
    if (this.abortReason) throw this.abortReason;
  }

  /** Undefined when no stop was requested. A fenced process has none either. */
  get stopReason(): StopReason | undefined {
    return this.requestedStop;
  }

  /** The run ended elsewhere, or belongs to another node: the outcome of the handler is rejected. */
  get isFenced(): boolean {
    return this.fenced;
  }

  get outcome(): Promise<Outcome> {
    return this.decided.promise;
  }

  /** Resolves when the handler itself has ended. */
  get settled(): Promise<void> {
    return this.ended.promise;
  }

  get isSettled(): boolean {
    return this.ended.happened;
  }

  get isDecided(): boolean {
    return this.decided.happened;
  }

  /** The handler has ended, or was not started. */
  settle(outcome: Outcome): void {
    this.ended.fire();
    // A committed end cannot be stopped any more.
    if (this.written?.fate) return this.decided.fire(outcome);
    const stopped =
      this.requestedStop?.kind === 'interrupted' && KEPT_ON_SHUTDOWN.has(outcome.kind)
        ? undefined
        : this.requestedStop;
    this.decided.fire(stopped ?? outcome);
  }

  /**
   * Tells the handler to stop. A cancel replaces an earlier reason, which would retry the job.
   * @returns false when a stop was requested before, or the outcome is decided
   */
  stop(reason: StopReason): boolean {
    if (this.isDecided) return false;
    const wasRequested = this.requestedStop !== undefined;
    if (!wasRequested || reason.kind === 'cancelled') this.requestedStop = reason;
    if (wasRequested) return false;
    this.abort(this.errorFor(reason));
    return true;
  }

  /** Decides the outcome without the handler. @returns false when the handler has ended */
  abandon(): boolean {
    if (this.isSettled || !this.requestedStop) return false;
    this.decided.fire(this.requestedStop);
    return true;
  }

  /** The run does not belong to this node any more: stops the handler, whose outcome is rejected. */
  fence(why: string): void {
    this.fenced = true;
    this.abort(new JobKilledError(this.jobRunId, why));
  }

  private abort(reason: Error): void {
    this.abortReason ??= reason;
    this.controller?.abort(this.abortReason);
  }

  private errorFor(reason: StopReason): Error {
    const { kind } = reason;
    if (kind === 'failed' && reason.error instanceof Error) return reason.error;
    return kind === 'timedOut'
      ? new JobTimeoutError(this.jobRunId, this.run.timeoutMs)
      : new JobKilledError(this.jobRunId, kind);
  }
}
