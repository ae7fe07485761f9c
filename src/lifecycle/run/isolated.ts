import { setMaxListeners } from 'node:events';
import { envelopeOf } from '../../context/envelope.js';
import { JobHostDiedError } from '../../job/errors.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { HostKind, ExecutionLogger } from '../../job/job-handler.js';
import type { Outcome } from '../../job/outcome.js';
import { errorFromPlain } from '../../job/plain-error.js';
import { runAfter, unlessAborted, waitBeforeRetry } from '../../concurrency/timers.js';
import type { HostEnd, HostedWork, JobHost, RunMessage } from '../../isolation/job-host.js';
import { sessionName } from '../../isolation/host-protocol.js';
import type { HostPool } from '../../isolation/host-pool.js';
import type { JobProcess } from './job-process.js';
import { cancelSession, chargeCrash } from '../../isolation/isolated-run.sql.js';
import type { Launched } from './execute-handler.js';
import { emitChunk, identityOf, recordProgress } from './execution.js';
import type { Store } from '../../database/store.js';
import type { RunnableCheck } from './runnable-check.js';

export type HostPools = Record<HostKind, HostPool>;

/** A run that was not started, because its `startBefore` is over or could not be checked. */
type NotStarted = Extract<Outcome, { kind: 'missed' | 'interrupted' }>;

/** Runs jobs in threads and processes. A handler that does not stop in time is killed with its host. */
export class IsolatedJobs {
  private pools: HostPools | undefined;
  private readonly hosts = new Map<JobProcess, JobHost>();
  private readonly stopCancels = new AbortController();

  constructor(
    private readonly store: Store,
    private readonly events: JobEvents,
    private readonly loggerFor: (run: ClaimedRun) => ExecutionLogger,
    private readonly graceMs: number,
    private readonly maxCrashes: number,
    private readonly runnable: RunnableCheck,
    private readonly nodeId: () => string,
  ) {
    // One listener for each run whose statements are being cancelled.
    setMaxListeners(0, this.stopCancels.signal);
  }

  /** Must be called before the first claim. */
  setPools(pools: HostPools): void {
    this.pools = pools;
  }

  /** The node stops: no further hosts are started. */
  drain(): void {
    for (const pool of Object.values(this.pools ?? {})) pool.drain();
  }

  /** Gives up cancelling statements of ended runs; they continue on the server. */
  stopCancelling(): void {
    this.stopCancels.abort();
  }

  /** Undefined while the process has no host. */
  hostOf(process: JobProcess): JobHost | undefined {
    return this.hosts.get(process);
  }

  /** Settles the process, and never rejects. */
  async execute(process: JobProcess, kind: HostKind, launched?: Launched): Promise<void> {
    let outcome: Outcome;
    try {
      // Without an idle host the caller would wait for the end of another job, or for the start of a host.
      if (this.pools && !this.pools[kind].hasIdle) launched?.();
      let hasStarted = false;
      const onStarted: Launched = () => {
        hasStarted = true;
        launched?.();
      };
      let end = await this.runOnce(process, kind, onStarted);
      // An earlier job killed the host before this one started: one retry on another host.
      if (end.kind === 'hostDied' && !hasStarted)
        end = await this.runOnce(process, kind, onStarted);
      outcome = await this.outcomeOf(end, process, kind);
    } catch (error) {
      outcome = { kind: 'failed', error };
    }
    if ('error' in outcome) launched?.(outcome.error as Error);
    process.settle(outcome);
  }

  /** @throws the signal's reason, if the process must stop before it has a host */
  private async runOnce(
    process: JobProcess,
    kind: HostKind,
    onStarted: Launched,
  ): Promise<HostEnd | NotStarted> {
    process.throwIfStopping();
    const pool = this.pools?.[kind];
    if (!pool) throw new Error('this engine has no hosts for jobs');
    const host = await pool.acquire(process.signal);
    // Checked here, because the job may have waited for a host.
    const tooLate = envelopeOf(process.run.jobContext)?.startBefore
      ? await this.runnable.outcomeIfTooLate(process.run)
      : undefined;
    if (tooLate) {
      pool.release(host);
      return tooLate;
    }
    this.hosts.set(process, host);
    const ending = host.run(this.workFor(process, onStarted));
    const stopWatching = this.killAfterGracePeriod(process, host);
    const end = await ending;
    stopWatching();
    this.hosts.delete(process);
    pool.release(host);
    return end;
  }

  private workFor(process: JobProcess, onStarted: Launched): HostedWork {
    const onMessage = (message: RunMessage) => this.handleMessage(process, message, onStarted);
    return { run: process.run, nodeId: this.nodeId(), onMessage };
  }

  /** Repeats the events of a run in a host here, as if its handler ran here. */
  private handleMessage(process: JobProcess, message: RunMessage, onStarted: Launched): void {
    const { events } = this;
    switch (message.type) {
      case 'log':
        return this.loggerFor(process.run)[message.level](message.message);
      case 'started':
        events.emit('run.started', identityOf(process.run));
        return onStarted();
      case 'stream':
        return emitChunk(process.run, events, message.chunk);
      case 'written':
        process.written = { output: parseOutput(message.output) };
        return;
      case 'progress':
        return recordProgress(process, events, message);
    }
  }

  /** Sends a stop to the host, and kills it after the grace period. @returns a function that ends this */
  private killAfterGracePeriod(process: JobProcess, host: JobHost): () => void {
    let cancelKill = () => {};
    const onAbort = () => {
      const { stopReason, signal } = process;
      host.sendStop(
        stopReason
          ? { command: 'stop', reason: stopReason }
          : { command: 'fence', why: String(signal.reason) },
      );
      cancelKill = runAfter(this.graceMs, () => {
        this.events.emit('process.killed', {
          ...identityOf(process.run),
          isolation: host.kind,
        });
        void host.kill().then(() => this.cancelStatements(process));
      });
    };
    if (process.signal.aborted) onAbort();
    else process.signal.addEventListener('abort', onAbort, { once: true });
    return () => {
      cancelKill();
      process.signal.removeEventListener('abort', onAbort);
    };
  }

  /** Until a statement ends, the server does not notice that its client has gone. Never rejects. */
  private async cancelStatements({ jobRunId }: JobProcess): Promise<void> {
    const { db, tables } = this.store;
    for (let attempt = 0; ; attempt++)
      try {
        await cancelSession(db, sessionName(tables.schema, jobRunId));
        return;
      } catch (error) {
        if (attempt === 0)
          this.events.emit('engine.error', {
            doing: `cancelling the statements of run ${jobRunId}`,
            error,
          });
        if (!(await waitBeforeRetry(attempt, this.stopCancels.signal))) return;
      }
  }

  private outcomeOf(
    end: HostEnd | NotStarted,
    process: JobProcess,
    kind: HostKind,
  ): Outcome | Promise<Outcome> {
    if (end.kind === 'hostDied')
      return this.chargeCrash(process, new JobHostDiedError(kind, end.why));
    if ('written' in end && end.written)
      process.written = {
        ...end.written,
        output: parseOutput(end.written.output),
      };
    if ('error' in end) return { kind: end.kind, error: errorFromPlain(end.error) as Error };
    if (end.kind !== 'completed') return end;
    return { kind: 'completed', output: parseOutput(end.output) };
  }

  /**
   * Counts a crash against the job, which may have killed its host. If this node is lost before the run has ended,
   * the crash may count twice: the job is given up one crash too early then, never too late.
   */
  private async chargeCrash(process: JobProcess, error: JobHostDiedError): Promise<Outcome> {
    // This node killed the host.
    if (process.isStopping) return { kind: 'failed', error };
    void this.cancelStatements(process);
    const { db, tables } = this.store;
    const { maxCrashes } = this;
    let crashes = 1;
    try {
      // A process that must stop meanwhile has an outcome, and needs no charge.
      crashes = await unlessAborted(process.signal, chargeCrash(db, tables, process.run));
    } catch (failure) {
      if (process.isStopping) return { kind: 'failed', error };
      this.events.emit('engine.error', {
        doing: `counting a crash of run ${process.jobRunId}`,
        error: failure,
      });
    }
    return { kind: 'hostDied', error, crashes, maxCrashes };
  }
}

/** The return value of a handler, as its host sent it. */
const parseOutput = (json: string | null) =>
  json === null ? undefined : (JSON.parse(json) as unknown);
