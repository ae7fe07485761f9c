import type { FinishRuns } from '../lifecycle/finish/finish.js';
import type { RunJobs } from '../lifecycle/run/run.js';
import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import type { JobProcess, StopReason } from '../lifecycle/run/job-process.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { runningFacts, runsToStop } from '../lifecycle/run/run.sql.js';
import type { ClaimsAhead } from './prefetch.js';
import { MAX_TIMER_MS, waitAtMost } from '../concurrency/timers.js';

/** A thread or process that is killed has ended by then, but for a thread inside a native call. */
const END_MS = 2_000;

/**
 * Stops what runs too long, and what somebody asked to stop: a precise timer for each process of this
 * node, and a sweep over the database's view of it as the backstop.
 */
export class Killer {
  private readonly alarms = new Map<JobProcess, NodeJS.Timeout>();
  private readonly unarmed: JobProcess[] = [];
  private closed = false;
  private sweeping: Promise<void> | undefined;

  constructor(
    private readonly store: Store,
    private readonly processes: ProcessRegistry,
    private readonly runs: RunJobs,
    private readonly ahead: ClaimsAhead,
    private readonly finishRuns: FinishRuns,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly graceMs: number,
  ) {
    processes.watch({
      added: (process) => this.armSoon(process),
      removed: (process) => this.disarm(process),
    });
  }

  /**
   * Aborts the process's signal and waits for the grace period; a handler that goes on is abandoned:
   * its run ends without it. @returns whether the handler has ended
   */
  async stop(process: JobProcess, reason: StopReason): Promise<boolean> {
    process.stop(reason);
    await waitAtMost(
      // What is isolated is ended after it.
      this.graceMs + (process.isolation === 'inline' ? 0 : END_MS),
      process.settled,
    );
    process.abandon();
    return process.isSettled;
  }

  /** One at a time; never rejects. */
  async sweep(): Promise<void> {
    this.sweeping ??= this.lookForRunsToStop().finally(() => {
      this.sweeping = undefined;
    });
    await this.sweeping;
  }

  /** Lets all alarms go; a handler that never ends must not keep the process alive. */
  close(): void {
    this.closed = true;
    for (const process of this.alarms.keys()) this.disarm(process);
  }

  private async lookForRunsToStop(): Promise<void> {
    try {
      const { db, tables } = this.store;
      const found = await runsToStop(db, tables, this.node.id);
      await Promise.all(
        found.map(({ jobRunId, killRequested }) =>
          this.stopRun(jobRunId, { kind: killRequested ?? 'timedOut' }),
        ),
      );
    } catch (error) {
      this.events.emit('engine.error', { doing: "the killer's sweep", error });
    }
  }

  private async stopRun(jobRunId: string, reason: StopReason): Promise<void> {
    const process = this.processes.find(jobRunId);
    if (process) return void this.stop(process, reason);
    // Its outcome is decided, and about to be recorded.
    if (this.runs.endOf(jobRunId)) return;
    // A timeout does not run while a claim waits for its slot.
    if (this.ahead.has(jobRunId) && reason.kind === 'timedOut') return;
    // Claimed by this node, and not launched, or lost before it was.
    this.ahead.drop(jobRunId);
    const facts = await runningFacts(this.store.db, this.store.tables, jobRunId);
    if (facts) await this.finishRuns.finish(facts, reason);
  }

  /** Jobs that end in the turn of the event loop they begin in are spared a timer. */
  private armSoon(process: JobProcess): void {
    if (this.unarmed.push(process) === 1)
      setImmediate(() => {
        for (const one of this.unarmed.splice(0))
          if (!one.isSettled && !this.closed)
            this.arm(one, performance.now() + one.run.timeoutMs - one.ageMs);
      });
  }

  private arm(process: JobProcess, at: number): void {
    const wait = Math.min(Math.max(at - performance.now(), 0), MAX_TIMER_MS);
    const alarm = setTimeout(() => {
      if (at - performance.now() > 1) this.arm(process, at);
      else void this.stop(process, { kind: 'timedOut' });
    }, wait);
    this.alarms.set(process, alarm);
  }

  private disarm(process: JobProcess): void {
    clearTimeout(this.alarms.get(process));
    this.alarms.delete(process);
  }
}
