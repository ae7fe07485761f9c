import type { ClaimJobs } from '../lifecycle/claim/claim.js';
import type { LateRunRows } from '../lifecycle/run/late-run-rows.js';
import type { RunJobs } from '../lifecycle/run/run.js';
import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { ClaimedRun } from '../job/run-facts.js';
import type { NodeState } from '../job/node-state.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { renewRuns, type LostRunLease } from '../lifecycle/run/run.sql.js';
import type { ClaimsAhead } from '../node/prefetch.js';
import { BEATS_PER_LEASE } from './heartbeats-per-lease.js';
import type { Inspection } from '../control/inspect.js';

/**
 * Keeps the leases of this node's runs, learns which of them somebody else has closed, and gives back
 * what the database says runs here and does not (the answer to a claim was lost).
 */
export class Heartbeat {
  private beating: Promise<void> | undefined;
  private answeredAt = performance.now();
  private failedAt = -Infinity;
  /** Runs of a former incarnation: their ends are still to be recorded, their leases are not this one's. */
  private former = new Set<string>();

  constructor(
    private readonly store: Store,
    private readonly claims: ClaimJobs,
    private readonly lateRows: LateRunRows,
    private readonly runs: RunJobs,
    private readonly ahead: ClaimsAhead,
    private readonly processes: ProcessRegistry,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly inspection: Inspection,
  ) {}

  /** One at a time; never rejects. */
  async beat(): Promise<void> {
    this.beating ??= this.renew().finally(() => {
      this.beating = undefined;
    });
    await this.beating;
  }

  /**
   * Whether a lease that is over means that its node is gone. Not after the database was away from us, or
   * we from it: then living nodes could not renew theirs either, and get the time of two beats to.
   */
  async canJudge(): Promise<boolean> {
    const twoBeats = (2 * this.node.leaseMs) / BEATS_PER_LEASE;
    if (performance.now() - this.answeredAt > twoBeats) await this.beat();
    return performance.now() - this.failedAt > twoBeats;
  }

  /** The database did not do what was asked of it. */
  failed(): void {
    this.failedAt = performance.now();
  }

  /** Renews what is held now no more. */
  disown(): void {
    for (const { jobRunId } of this.runs.held()) this.former.add(jobRunId);
  }

  private async renew(): Promise<void> {
    if (this.node.fenced) return;
    try {
      const { db, tables } = this.store;
      const held = [...this.mine(), ...this.ahead.held()];
      const written = await this.lateRows.writeHeld(held);
      if (!this.awaitsLateClaim) await this.claims.releaseUnheard(this.holds());
      const { id, leaseMs } = this.node;
      const { lost, stranded } = await renewRuns(
        db,
        tables,
        id,
        leaseMs,
        written.map(({ jobRunId }) => jobRunId),
        this.inspection.told(),
      );
      for (const run of lost) this.lose(run);
      if (!this.awaitsLateClaim) {
        const holds = new Set(this.holds().map(({ jobRunId }) => jobRunId));
        await this.claims.releaseRuns(stranded.filter((id) => !holds.has(id)));
      }
      this.answeredAt = performance.now();
      this.node.renewedAt = this.answeredAt;
    } catch (error) {
      this.failed();
      this.events.emit('engine.error', { doing: 'the heartbeat', error });
    }
  }

  /** The answer to a claim may come as late as that: what it claimed looks stranded, and is about to start. */
  private get awaitsLateClaim(): boolean {
    return this.claims.waitingMs > this.node.leaseMs / 2;
  }

  private holds(): ClaimedRun[] {
    return [...this.runs.held(), ...this.ahead.held()];
  }

  private mine(): ClaimedRun[] {
    const held = this.runs.held();
    if (this.former.size === 0) return held;
    const former = held.filter(({ jobRunId }) => this.former.has(jobRunId));
    this.former = new Set(former.map(({ jobRunId }) => jobRunId));
    return held.filter(({ jobRunId }) => !this.former.has(jobRunId));
  }

  private lose({ jobRunId, outcome }: LostRunLease): void {
    this.ahead.drop(jobRunId);
    const process = this.processes.find(jobRunId);
    // Its handler has committed that it succeeded, and goes on.
    if (process?.written && (outcome === null || outcome === 'completed')) return;
    // Stopping a job in the queue leaves its process alone, as upstream does.
    if (outcome !== 'stopped') process?.fence('its run was closed by somebody else');
  }
}
