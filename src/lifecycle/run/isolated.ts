import { setMaxListeners } from 'node:events';
import { envelopeOf } from '../../context/envelope.js';
import { JobHostDiedError } from '../../job/errors.js';
import type { JobEvents } from '../../job/events.js';
import type { ClaimedRun } from '../../job/run-facts.js';
import type { HostKind, ExecutionLogger } from '../../job/job-handler.js';
import type { Outcome } from '../../job/outcome.js';
import { errorFromPlain } from '../../job/plain-error.js';
import { runAfter, unlessAborted, waitBeforeRetry } from '../../concurrency/timers.js';
import type { HostEnd, HostedWork, JobHost } from '../../isolation/job-host.js';
import { sessionName } from '../../isolation/host-protocol.js';
import type { HostPool } from '../../isolation/host-pool.js';
import type { JobProcess } from './job-process.js';
import { cancelSession, chargeCrash } from '../../isolation/isolated-run.sql.js';
import type { Launched } from './execute-handler.js';
import { identityOf } from './execution.js';
import { forwardHostEvents, parseOutput } from './host-events.js';
import type { Store } from '../../database/store.js';
import type { RunnableCheck } from './runnable-check.js';

export type HostPools = Record<HostKind, HostPool>;

/** A run that was not started, because its `startBefore` is over or could not be checked. */
type NotStarted = Extract<Outcome, { kind: 'missed' | 'interrupted' }>;

/** Jobs that run in threads and processes of their own. A handler that does not stop in time is ended with its host. */
export class IsolatedJobs {
  private pools: HostPools | undefined;
  private readonly hosts = new Map<JobProcess, JobHost>();
  private readonly leaving = new AbortController();

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
    setMaxListeners(0, this.leaving.signal);
  }

  /** To be called before anything is claimed. */
  use(pools: HostPools): void {
    this.pools = pools;
  }

  /** The node stops: no further hosts are started. */
  drain(): void {
    for (const pool of Object.values(this.pools ?? {})) pool.drain();
  }

  /** Gives up cancelling statements of ended runs; they continue on the server. */
  stopCancelling(): void {
    this.leaving.abort();
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
      let begun = false;
      const begin: Launched = () => {
        begun = true;
        launched?.();
      };
      let end = await this.runOnce(process, kind, begin);
      // The host died of an earlier job before this one started: one retry on another host.
      if (end.kind === 'hostDied' && !begun) end = await this.runOnce(process, kind, begin);
      outcome = await this.outcomeOf(end, process, kind);
    } catch (error) {
      outcome = { kind: 'failed', error };
    }
    if ('error' in outcome) launched?.(outcome.error as Error);
    process.settle(outcome);
  }

  /** @throws the signal's reason, if the process is told to stop before it has a host */
  private async runOnce(
    process: JobProcess,
    kind: HostKind,
    begin: Launched,
  ): Promise<HostEnd | NotStarted> {
    process.throwIfStopping();
    const pool = this.pools?.[kind];
    if (!pool) throw new Error('this engine has no hosts for jobs');
    const host = await pool.take(process.signal);
    // Checked here, because it may have waited for a host.
    const tooLate = envelopeOf(process.run.jobContext)?.startBefore
      ? await this.runnable.outcomeIfTooLate(process.run)
      : undefined;
    if (tooLate) {
      pool.release(host);
      return tooLate;
    }
    this.hosts.set(process, host);
    const ending = host.run(this.workFor(process, begin));
    const stopKilling = this.killInTime(process, host);
    const end = await ending;
    stopKilling();
    this.hosts.delete(process);
    pool.release(host);
    return end;
  }

  private workFor(process: JobProcess, begin: Launched): HostedWork {
    const { run } = process;
    const { events, loggerFor } = this;
    const heard = forwardHostEvents(process, { events, loggerFor, begin });
    return { run, nodeId: this.nodeId(), heard };
  }

  /** Told to stop, the handler has the grace period. @returns how to let it be */
  private killInTime(process: JobProcess, host: JobHost): () => void {
    let disarm = () => {};
    const told = () => {
      const { stopReason, signal } = process;
      host.tell(
        stopReason
          ? { order: 'stop', reason: stopReason }
          : { order: 'fence', why: String(signal.reason) },
      );
      disarm = runAfter(this.graceMs, () => {
        this.events.emit('process.killed', {
          ...identityOf(process.run),
          isolation: host.kind,
        });
        void host.kill().then(() => this.cancelStatements(process));
      });
    };
    if (process.signal.aborted) told();
    else process.signal.addEventListener('abort', told, { once: true });
    return () => {
      disarm();
      process.signal.removeEventListener('abort', told);
    };
  }

  /** The server does not notice that who asked is gone, until it has an answer. Never rejects. */
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
        // They go on while the database is out of reach.
        if (!(await waitBeforeRetry(attempt, this.leaving.signal))) return;
      }
  }

  private outcomeOf(
    end: HostEnd | NotStarted,
    process: JobProcess,
    kind: HostKind,
  ): Outcome | Promise<Outcome> {
    if (end.kind === 'hostDied') return this.charged(process, new JobHostDiedError(kind, end.why));
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
   * The job may be what its host died of. Should this node be lost before the run has ended, the job may be
   * charged once more: it is given up one crash too early then, never too late.
   */
  private async charged(process: JobProcess, error: JobHostDiedError): Promise<Outcome> {
    // Ended by this node itself.
    if (process.isStopping) return { kind: 'failed', error };
    void this.cancelStatements(process);
    const { db, tables } = this.store;
    const { maxCrashes } = this;
    let crashes = 1;
    try {
      // Told to stop meanwhile, it has a reason, and needs no charge.
      crashes = await unlessAborted(process.signal, chargeCrash(db, tables, process.run));
    } catch (failed) {
      if (process.isStopping) return { kind: 'failed', error };
      this.events.emit('engine.error', {
        doing: `charging run ${process.jobRunId} with a crash`,
        error: failed,
      });
    }
    return { kind: 'hostDied', error, crashes, maxCrashes };
  }
}
