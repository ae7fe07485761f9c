import type { RunJobs } from '../life/run.js';
import type { Store } from '../life/store.js';
import type { JobEvents } from '../model/events.js';
import type { NodeState } from '../model/node.js';
import type { ProcessRegistry } from '../runner/process-registry.js';
import { renewRuns } from '../store/run.store.js';
import type { ClaimsAhead } from './ahead.js';

/** Beats in one lease: four may be lost before a living run counts as lost. */
export const BEATS_PER_LEASE = 5;

/** Keeps the leases of this node's runs, and learns which of them somebody else has closed. */
export class Heartbeat {
  private beating: Promise<void> | undefined;

  constructor(
    private readonly store: Store,
    private readonly runs: RunJobs,
    private readonly ahead: ClaimsAhead,
    private readonly processes: ProcessRegistry,
    private readonly events: JobEvents,
    private readonly node: NodeState,
  ) {}

  /** One at a time; never rejects. */
  async beat(): Promise<void> {
    this.beating ??= this.renew().finally(() => {
      this.beating = undefined;
    });
    await this.beating;
  }

  private async renew(): Promise<void> {
    const ids = [...this.runs.runIds(), ...this.ahead.runIds()];
    if (ids.length === 0) return;
    try {
      const { dataSource, tables } = this.store;
      const lost = await renewRuns(
        dataSource,
        tables,
        this.node.id,
        this.node.leaseMs,
        ids,
      );
      for (const { jobRunId, reason } of lost) {
        this.ahead.drop(jobRunId);
        // Stopping a job in the queue leaves its process alone, as upstream does.
        if (reason !== 'Stopped')
          this.processes
            .find(jobRunId)
            ?.fence('its run was closed by somebody else');
      }
    } catch (error) {
      this.events.emit('engine.error', { doing: 'the heartbeat', error });
    }
  }
}
