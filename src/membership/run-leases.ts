import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import type { Prefetch } from '../lifecycle/claim/prefetch.js';
import type { LateRunRows } from '../lifecycle/run/late-run-rows.js';
import type { RunJobs } from '../lifecycle/run/run-jobs.js';
import type { Background } from '../concurrency/background.js';
import { runAfter } from '../concurrency/timers.js';
import type { EngineContext } from '../database/engine-context.js';
import type { ClaimedRun } from '../job/run-facts.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { renewRuns, type LostRunLease, type NodeReport } from '../lifecycle/run/run.sql.js';
import { HEARTBEATS_PER_LEASE } from './heartbeat-memory.js';

/**
 * Renews the leases of the runs that this node holds, five times per lease, from the main thread: a node whose event
 * loop is blocked keeps its own lease (`node-heartbeat.ts`), and its runs are protected by that.
 *
 * The same statement finds the runs that another caller has ended, and the stranded runs: they belong to this node in the
 * database but not in its memory, because the answer to a claim was lost. Stranded runs are released.
 */
export class RunLeases implements Background {
  private renewing: Promise<void> | undefined;
  private answeredAt = performance.now();
  private failedAt = -Infinity;
  /** Runs of an earlier incarnation: their ends are still recorded, their leases are not renewed. */
  private formerRuns = new Set<string>();
  private cancelNext: (() => void) | undefined;
  /** The lease that the next renewal was scheduled for. */
  private scheduledLeaseMs = Infinity;
  private stopped = false;

  constructor(
    private readonly engine: EngineContext,
    private readonly claims: ClaimJobs,
    private readonly lateRows: LateRunRows,
    private readonly runs: RunJobs,
    private readonly prefetch: Prefetch,
    private readonly processes: ProcessRegistry,
    private readonly nodeReport: () => NodeReport,
  ) {}

  start(): void {
    this.scheduleNext();
    // A run whose lease was shortened cannot wait for a renewal that was scheduled before.
    this.processes.watch({
      added: () => {
        if (this.stopped || this.engine.node.leaseMs >= this.scheduledLeaseMs) return;
        this.cancelNext?.();
        this.scheduleNext();
      },
    });
  }

  async stop(): Promise<void> {
    this.stopped = true;
    this.cancelNext?.();
  }

  /** One renewal at a time. Never rejects. */
  async renewNow(): Promise<void> {
    this.renewing ??= this.renew().finally(() => {
      this.renewing = undefined;
    });
    await this.renewing;
  }

  /**
   * Whether an expired lease proves that its node is gone. Not within two heartbeats of an outage: living nodes could not
   * renew their leases either.
   */
  async areReliable(): Promise<boolean> {
    const twoHeartbeatsMs = (2 * this.engine.node.leaseMs) / HEARTBEATS_PER_LEASE;
    if (performance.now() - this.answeredAt > twoHeartbeatsMs) await this.renewNow();
    return performance.now() - this.failedAt > twoHeartbeatsMs;
  }

  /** A statement of the engine has failed: for two heartbeats, expired leases prove nothing. */
  recordFailure(): void {
    this.failedAt = performance.now();
  }

  /** Stops renewing the current runs, because this incarnation has ended. */
  stopRenewing(): void {
    for (const { jobRunId } of this.runs.heldRuns()) this.formerRuns.add(jobRunId);
  }

  /** Each renewal schedules the next: an operator may change the lease meanwhile. */
  private scheduleNext(): void {
    this.scheduledLeaseMs = this.engine.node.leaseMs;
    this.cancelNext = runAfter(this.scheduledLeaseMs / HEARTBEATS_PER_LEASE, () => {
      void this.renewNow();
      if (!this.stopped) this.scheduleNext();
    });
  }

  private async renew(): Promise<void> {
    const { store, node, events } = this.engine;
    if (node.fenced) return;
    try {
      const renewable = [...this.ownRuns(), ...this.prefetch.held()];
      const written = await this.lateRows.writeHeld(renewable);
      if (!this.expectsLateClaim) await this.claims.releaseUnacknowledged(this.heldRuns());
      const { lost, stranded } = await renewRuns(
        store.db,
        store.tables,
        node.id,
        node.leaseMs,
        written.map(({ jobRunId }) => jobRunId),
        this.nodeReport(),
      );
      for (const run of lost) this.loseRun(run);
      if (!this.expectsLateClaim) {
        const held = new Set(this.heldRuns().map(({ jobRunId }) => jobRunId));
        await this.claims.releaseRuns(stranded.filter((id) => !held.has(id)));
      }
      this.answeredAt = performance.now();
      node.renewedAt = this.answeredAt;
    } catch (error) {
      this.recordFailure();
      events.emit('engine.error', { doing: 'renewing the leases of runs', error });
    }
  }

  /** The answer to a claim may still arrive: its runs look stranded, and are about to start. */
  private get expectsLateClaim(): boolean {
    return this.claims.waitingMs > this.engine.node.leaseMs / 2;
  }

  private heldRuns(): ClaimedRun[] {
    return [...this.runs.heldRuns(), ...this.prefetch.held()];
  }

  /** The held runs without the runs of earlier incarnations. */
  private ownRuns(): ClaimedRun[] {
    const held = this.runs.heldRuns();
    if (this.formerRuns.size === 0) return held;
    const formerRuns = held.filter(({ jobRunId }) => this.formerRuns.has(jobRunId));
    this.formerRuns = new Set(formerRuns.map(({ jobRunId }) => jobRunId));
    return held.filter(({ jobRunId }) => !this.formerRuns.has(jobRunId));
  }

  private loseRun({ jobRunId, outcome }: LostRunLease): void {
    this.prefetch.drop(jobRunId);
    const process = this.processes.find(jobRunId);
    // Its handler has committed its success in its own transaction, and still works.
    if (process?.written && (outcome === null || outcome === 'completed')) return;
    // Stopping a job in the queue leaves its process alone, as upstream does.
    if (outcome !== 'stopped') process?.fence('its run was ended elsewhere');
  }
}
