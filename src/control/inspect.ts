import type { IsolatedJobs } from '../lifecycle/run/isolated.js';
import type { Store } from '../database/store.js';
import type { NodeState } from '../job/node-state.js';
import type { JobProcessFacts } from '../job/process-facts.js';
import type { JobProcess } from '../lifecycle/run/job-process.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { findProcessFacts } from '../membership/node.sql.js';

/** Shorter jobs are not reported: they are over before somebody can ask. */
const SHORT_MS = 1_000;
/** In one report. */
const MAX_REPORTED = 1_000;

/** What is known of processes at work, on this node and on others. */
export class Inspection {
  constructor(
    private readonly store: Store,
    private readonly processes: ProcessRegistry,
    private readonly isolated: IsolatedJobs,
    private readonly node: NodeState,
  ) {}

  /** Null where the run is not RUNNING, or its node has not told of it yet. */
  async of(jobRunId: string): Promise<JobProcessFacts | null> {
    const process = this.processes.find(jobRunId);
    if (process) return this.factsOf(process);
    const { db, tables } = this.store;
    return findProcessFacts(db, tables, jobRunId);
  }

  /** For the node's row: processes that are at least a second old, the oldest first. */
  report(): { abandoned: number; processes: JobProcessFacts[] } {
    const all = this.processes.all();
    return {
      abandoned: all.filter(isAbandoned).length,
      processes: all
        .filter(({ ageMs }) => ageMs >= SHORT_MS)
        .slice(0, MAX_REPORTED)
        .map((one) => this.factsOf(one)),
    };
  }

  private factsOf(one: JobProcess): JobProcessFacts {
    const host = this.isolated.hostOf(one);
    return {
      jobRunId: one.jobRunId,
      nodeId: this.node.id,
      isolation: one.isolation,
      ...(one.isolation === 'inline' ? this.inline() : (host?.facts() ?? NO_HOST)),
      startedAt: one.startedAt,
      progress: one.progress,
      stopping: one.isStopping,
      abandoned: isAbandoned(one),
      seenAt: new Date(),
    };
  }

  private inline() {
    const { user, system } = process.cpuUsage();
    return {
      pid: process.pid,
      threadId: 0,
      memoryBytes: process.memoryUsage.rss(),
      cpuMs: Math.round((user + system) / 1_000),
      eventLoopLagMs: Math.round(this.node.lagMs),
    };
  }
}

const isAbandoned = (process: JobProcess) => process.isDecided && !process.isSettled;

const NO_HOST = {
  pid: null,
  threadId: null,
  memoryBytes: null,
  cpuMs: null,
  eventLoopLagMs: null,
};
