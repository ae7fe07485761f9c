import type { IsolatedJobs } from '../lifecycle/run/isolated.js';
import type { Store } from '../database/store.js';
import type { NodeState } from '../job/node-state.js';
import type { JobProcessFacts } from '../job/process-facts.js';
import type { JobProcess } from '../lifecycle/run/job-process.js';
import type { ProcessRegistry } from '../lifecycle/run/process-registry.js';
import { findProcessFacts } from '../membership/node.sql.js';

/** Younger processes are not reported: most end before a caller reads the report. */
const SHORT_MS = 1_000;
/** Processes in one report. */
const MAX_REPORTED = 1_000;

/** The facts of running processes, on this node and on others. */
export class Inspection {
  constructor(
    private readonly store: Store,
    private readonly processes: ProcessRegistry,
    private readonly isolated: IsolatedJobs,
    private readonly node: NodeState,
  ) {}

  /** @returns null if the run is not RUNNING, or its node has not reported it yet */
  async findFacts(jobRunId: string): Promise<JobProcessFacts | null> {
    const process = this.processes.find(jobRunId);
    if (process) return this.collectFacts(process);
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
        .map((one) => this.collectFacts(one)),
    };
  }

  private collectFacts(one: JobProcess): JobProcessFacts {
    const host = this.isolated.hostOf(one);
    return {
      jobRunId: one.jobRunId,
      nodeId: this.node.id,
      isolation: one.isolation,
      ...(one.isolation === 'inline' ? this.inlineFacts() : (host?.facts() ?? NO_HOST)),
      startedAt: one.startedAt,
      progress: one.progress,
      stopping: one.isStopping,
      abandoned: isAbandoned(one),
      seenAt: new Date(),
    };
  }

  private inlineFacts() {
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
