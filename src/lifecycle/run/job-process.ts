import { JobKilledError, JobTimeoutError } from '../../job/errors.js';
import type { EntryFate } from '../../job/events.js';
import { processName, type ClaimedRun } from '../../job/run-facts.js';
import type { Isolation } from '../../job/job-handler.js';
import type { Outcome } from '../../job/outcome.js';
import type { JobProgress } from '../../job/process-facts.js';
import { OneTimeEvent } from '../../concurrency/one-time-event.js';

/** Why a process is told to stop; it becomes the run's outcome unless noted otherwise. */
export type StopReason = Extract<
  Outcome,
  { kind: 'timedOut' | 'killed' | 'cancelled' | 'interrupted' | 'failed' }
>;

/** What a handler has decided stands, although a shutdown interrupts it. */
const DECIDED: ReadonlySet<Outcome['kind']> = new Set([
  'completed',
  'failedForGood',
  'snoozed',
  'cancelled',
]);
/** That a run has SUCCEEDED, written by a transaction of its handler's. */
export interface WrittenEnd {
  output: unknown;
  /**
   * What became of the entry; null: the run was ended by somebody else before. Undefined where nobody knows yet whether
   * the transaction was committed.
   */
  fate?: EntryFate | null;
}

/**
 * A handler at work on this node.
 *
 * Its life: it is registered, its handler works, then it settles. Meanwhile it may be told to stop: its
 * signal aborts, and the stop reason will be the outcome whatever the handler does, except that a
 * handler interrupted by a shutdown which still returns has completed, and one that snoozes or gives up has done that. If it does not settle within
 * the grace period it is abandoned: the outcome is decided without it, and the process keeps its
 * slot until the handler ends. The outcome is decided once.
 */
export class JobProcess {
  /** How the run ends, with or without the handler. */
  readonly decided = new OneTimeEvent<Outcome>();
  /** Its end is in the database: what became of its entry, or null when somebody else had ended the run. */
  readonly recorded = new OneTimeEvent<EntryFate | null>();
  private readonly startedTicking = performance.now();
  private readonly ended = new OneTimeEvent<void>();
  private controller?: AbortController;
  private abortReason?: Error;
  private stopReason?: StopReason;
  private fencedOff = false;

  /** The end that a transaction of its handler's has written, as far as is known. */
  written: WrittenEnd | undefined;

  /** What its handler said last of how far it is. */
  progress: JobProgress | null = null;

  /** @param isolation where its handler runs: a host is ended where that does not stop by itself */
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
    return new Date(performance.timeOrigin + this.startedTicking);
  }

  /** Milliseconds since it was made, whatever happens to the wall clock. */
  get ageMs(): number {
    return performance.now() - this.startedTicking;
  }

  /** Aborts when the process is told to stop. */
  get signal(): AbortSignal {
    if (!this.controller) {
      this.controller = new AbortController();
      if (this.abortReason) this.controller.abort(this.abortReason);
    }
    return this.controller.signal;
  }

  get stopping(): boolean {
    return this.abortReason !== undefined;
  }

  /** @throws the signal's reason when the process was told to stop */
  throwIfStopping(): void {
    if (this.abortReason) throw this.abortReason;
  }

  /** Why it was told to stop; undefined where it was not, or its run was taken away. */
  get toldWhy(): StopReason | undefined {
    return this.stopReason;
  }

  /** Somebody else closed the run: whatever the handler does, nothing of it will land. */
  get fenced(): boolean {
    return this.fencedOff;
  }

  /** Resolves with how the run ends, with or without the handler. */
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

  /** The handler itself has ended, or did not get to start. */
  settle(outcome: Outcome): void {
    this.ended.fire();
    // What is committed is no more to be stopped.
    if (this.written?.fate) return this.decided.fire(outcome);
    const stopped =
      this.stopReason?.kind === 'interrupted' && DECIDED.has(outcome.kind)
        ? undefined
        : this.stopReason;
    this.decided.fire(stopped ?? outcome);
  }

  /**
   * Tells the handler to stop. A cancel outranks an earlier reason, which would bring the job back.
   * @returns false when it had been told already, or had ended
   */
  stop(reason: StopReason): boolean {
    if (this.isDecided) return false;
    const told = this.stopReason !== undefined;
    if (!told || reason.kind === 'cancelled') this.stopReason = reason;
    if (told) return false;
    this.abort(this.errorFor(reason));
    return true;
  }

  /** Decides the outcome without the handler. @returns false when it had ended */
  abandon(): boolean {
    if (this.isSettled || !this.stopReason) return false;
    this.decided.fire(this.stopReason);
    return true;
  }

  /** The run is this node's no more: stops the handler, whose end will not be recorded. */
  fence(why: string): void {
    this.fencedOff = true;
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
