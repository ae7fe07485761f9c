import type { ClaimJobs } from '../life/claim.js';
import type { FinishDoor } from '../life/finish.js';
import type { RunJobs } from '../life/run.js';
import type { Store } from '../life/store.js';
import type { JobEvents } from '../model/events.js';
import type { NodeState } from '../model/node.js';
import type { Settings } from '../model/settings.js';
import { countOutcomes } from '../policy/counts.js';
import type { ProcessRegistry } from '../runner/process-registry.js';
import { promoteScheduled } from '../store/enqueue.store.js';
import type { JobRun } from '../store/entities/index.js';
import { reopenOrphans } from '../store/finish.store.js';
import { expiredFacts } from '../store/run.store.js';
import type { SingleRunnerGuard } from './guard.js';

/** What became of one job in a pass. */
export type JobOutcome =
  { ok: true; jobRun: JobRun } | { ok: false; error: unknown };

export interface JobEngineResults {
  start: JobOutcome[];
  expire: JobOutcome[];
  /** A pass was under way, here or on another node; it was told to look once more. */
  alreadyRunning: boolean;
}

/**
 * The engine's pass: expire what is expired, make due what is scheduled, start what is available by
 * priority and age. A constant number of statements, whatever it finds.
 *
 * Between passes a node refills its own slots as they get free, as long as the last claim left work
 * behind; that needs no guard, for a claim is compare-and-set.
 */
export class EngineCycle {
  private pass: Promise<JobEngineResults> | undefined;
  private lookAgain = false;
  private filling: Promise<JobOutcome[]> | undefined;
  private moreWaiting = false;

  constructor(
    private readonly store: Store,
    private readonly guard: SingleRunnerGuard,
    private readonly claims: ClaimJobs,
    private readonly runs: RunJobs,
    private readonly door: FinishDoor,
    private readonly processes: ProcessRegistry,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly settings: Settings,
  ) {}

  async run(): Promise<JobEngineResults> {
    if (this.pass) {
      this.lookAgain = true;
      return { start: [], expire: [], alreadyRunning: true };
    }
    this.pass = this.untilNobodyAsks();
    return this.pass;
  }

  /** Starts what fits into the free slots, if the last claim left anything behind. */
  async refill(): Promise<void> {
    while (this.moreWaiting && !this.node.closing && this.freeSlots > 0)
      await this.start();
  }

  /** Resolves when nothing is being claimed or launched. */
  async idle(): Promise<void> {
    await Promise.allSettled([this.pass, this.filling]);
  }

  get freeSlots(): number {
    return this.settings.role === 'producer'
      ? 0
      : Math.max(0, this.settings.concurrency - this.processes.size);
  }

  /** Who asks while the guard is let go is too late for that pass, and is told of no other: so one more. */
  private async untilNobodyAsks(): Promise<JobEngineResults> {
    try {
      let results = await this.guarded();
      while (this.lookAgain && !this.node.closing) {
        const { start, expire, alreadyRunning } = await this.guarded();
        results = {
          start: [...results.start, ...start],
          expire: [...results.expire, ...expire],
          alreadyRunning: results.alreadyRunning && alreadyRunning,
        };
      }
      return results;
    } finally {
      // In the same turn as the last look at `lookAgain`: nobody can ask in between.
      this.pass = undefined;
    }
  }

  private async guarded(): Promise<JobEngineResults> {
    this.lookAgain = false;
    const term = await this.guard.acquire();
    if (term === null) return { start: [], expire: [], alreadyRunning: true };
    const start: JobOutcome[] = [];
    const expire: JobOutcome[] = [];
    try {
      do {
        this.lookAgain = false;
        expire.push(...(await this.expire()));
        start.push(...(await this.start()));
      } while (this.lookAgain || (await this.guard.release(term)));
    } catch (error) {
      await this.guard.drop(term).catch(() => undefined);
      throw error;
    }
    this.events.emit('engine.pass', {
      node: this.node.id,
      term,
      started: countOutcomes(start).okCount,
      expired: countOutcomes(expire).okCount,
      errors: countOutcomes([...start, ...expire]).errorCount,
    });
    return { start, expire, alreadyRunning: false };
  }

  private async expire(): Promise<JobOutcome[]> {
    const { dataSource, tables } = this.store;
    const limit = this.node.batchSize;
    const lost = await expiredFacts(dataSource, tables, limit);
    const outcomes = await Promise.all(
      lost.map(async (run): Promise<JobOutcome | null> => {
        try {
          const landed = await this.door.finish(
            run,
            { kind: 'expired' },
            { onlyIfExpired: true },
          );
          return landed && { ok: true, jobRun: landed.jobRun };
        } catch (error) {
          return { ok: false, error };
        }
      }),
    );
    await reopenOrphans(dataSource, tables, limit);
    await promoteScheduled(dataSource, tables, limit);
    return outcomes.filter((outcome) => outcome !== null);
  }

  /** One claim at a time: two would count the same slots as free. */
  private async start(): Promise<JobOutcome[]> {
    while (this.filling) await this.filling.catch(() => undefined);
    this.filling = this.claimAndLaunch();
    try {
      return await this.filling;
    } finally {
      this.filling = undefined;
    }
  }

  private async claimAndLaunch(): Promise<JobOutcome[]> {
    const limit = Math.min(
      this.freeSlots,
      this.node.batchSize,
      this.settings.batchSize ?? Infinity,
    );
    this.moreWaiting = true;
    if (limit === 0) return [];
    const claimed = await this.claims.next(limit);
    this.moreWaiting = claimed.length === limit;
    return Promise.all(
      claimed.map(async ({ jobRun, claimed: run }): Promise<JobOutcome> => {
        try {
          await this.runs.launch(run);
          return { ok: true, jobRun };
        } catch (error) {
          return { ok: false, error };
        }
      }),
    );
  }
}
