import type { Background } from '../../concurrency/background.js';
import { MAX_TIMER_MS, waitAtMost } from '../../concurrency/timers.js';
import { runEveryShifted } from '../../concurrency/timers.js';
import type { EngineContext } from '../../database/engine-context.js';
import type { Prefetch } from '../claim/prefetch.js';
import type { FinishRuns } from '../finish/finish-runs.js';
import type { JobProcess, StopReason } from './job-process.js';
import type { ProcessRegistry } from './process-registry.js';
import type { RunJobs } from './run-jobs.js';
import { runningFacts, runsToStop } from './run.sql.js';

const SWEEP_MS = 1_000;
/** A killed thread or process has ended by then, unless a thread is inside a native call. */
const HOST_END_MS = 2_000;

/**
 * Stops runs that exceed their timeout or have a kill request. Each process of this node has a precise timer. A sweep
 * over this node's runs in the database is the backstop.
 */
export class Killer implements Background {
  private readonly timers = new Map<JobProcess, NodeJS.Timeout>();
  private readonly withoutTimer: JobProcess[] = [];
  private stopped = false;
  private sweeping: Promise<void> | undefined;
  private stopSweeps: (() => void) | undefined;

  constructor(
    private readonly engine: EngineContext,
    private readonly processes: ProcessRegistry,
    private readonly runs: RunJobs,
    private readonly prefetch: Prefetch,
    private readonly finishRuns: FinishRuns,
  ) {
    processes.watch({
      added: (process) => this.setTimerSoon(process),
      removed: (process) => this.clearTimer(process),
    });
  }

  /** Timers run from the construction on; this starts the sweep. */
  start(): void {
    this.stopSweeps = runEveryShifted(SWEEP_MS, () => void this.sweep());
  }

  /** A handler that never ends must not keep the process alive. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.stopSweeps?.();
    for (const process of this.timers.keys()) this.clearTimer(process);
  }

  /**
   * Aborts the process's signal and waits for the grace period. A handler that still works then is abandoned: its run
   * ends without it. @returns whether the handler has ended
   */
  async stopProcess(process: JobProcess, reason: StopReason): Promise<boolean> {
    process.stop(reason);
    const graceMs = this.engine.settings.shutdown.killGracePeriod;
    // The host of an isolated job is killed after the grace period.
    await waitAtMost(
      process.isolation === 'inline' ? graceMs : graceMs + HOST_END_MS,
      process.settled,
    );
    process.abandon();
    return process.isSettled;
  }

  /** One sweep at a time. Never rejects. */
  async sweep(): Promise<void> {
    this.sweeping ??= this.stopRuns().finally(() => {
      this.sweeping = undefined;
    });
    await this.sweeping;
  }

  private async stopRuns(): Promise<void> {
    const { store, node, events } = this.engine;
    try {
      const found = await runsToStop(store.db, store.tables, node.id);
      await Promise.all(
        found.map(({ jobRunId, killRequested }) =>
          this.stopRun(jobRunId, { kind: killRequested ?? 'timedOut' }),
        ),
      );
    } catch (error) {
      events.emit('engine.error', { doing: 'stopping runs', error });
    }
  }

  private async stopRun(jobRunId: string, reason: StopReason): Promise<void> {
    const process = this.processes.find(jobRunId);
    if (process) return void this.stopProcess(process, reason);
    // Its outcome is decided, and about to be recorded.
    if (this.runs.fateOf(jobRunId)) return;
    // The timeout does not apply while a prefetched run waits for its slot.
    if (this.prefetch.has(jobRunId) && reason.kind === 'timedOut') return;
    // Claimed by this node and never launched.
    this.prefetch.drop(jobRunId);
    const { db, tables } = this.engine.store;
    const facts = await runningFacts(db, tables, jobRunId);
    if (facts) await this.finishRuns.finish(facts, reason);
  }

  /** A job that ends in the event-loop turn in which it began needs no timer. */
  private setTimerSoon(process: JobProcess): void {
    if (this.withoutTimer.push(process) > 1) return;
    setImmediate(() => {
      for (const waiting of this.withoutTimer.splice(0))
        if (!waiting.isSettled && !this.stopped)
          this.setTimer(waiting, performance.now() + waiting.run.timeoutMs - waiting.ageMs);
    });
  }

  private setTimer(process: JobProcess, at: number): void {
    const wait = Math.min(Math.max(at - performance.now(), 0), MAX_TIMER_MS);
    const timer = setTimeout(() => {
      if (at - performance.now() > 1) this.setTimer(process, at);
      else void this.stopProcess(process, { kind: 'timedOut' });
    }, wait);
    this.timers.set(process, timer);
  }

  private clearTimer(process: JobProcess): void {
    clearTimeout(this.timers.get(process));
    this.timers.delete(process);
  }
}
