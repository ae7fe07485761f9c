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
import type { Claim } from '../store/claim.store.js';
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
 * Between passes, and while another node's pass is under way, a node fills its own slots: that needs
 * no guard, for a claim is compare-and-set.
 */
export class EngineCycle {
  private pass: Promise<JobEngineResults> | undefined;
  private lookAgain = false;
  private filling: Promise<JobOutcome[]> | undefined;
  private moreWaiting = false;
  private readonly launching = new Set<Promise<JobRun>>();

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

  /** @param insist if a pass is under way, here or on another node, make it look once more */
  run({ insist = true } = {}): Promise<JobEngineResults> {
    if (this.pass) {
      this.lookAgain ||= insist;
      return Promise.resolve(nothingDone());
    }
    this.pass = this.passes(insist);
    return this.pass;
  }

  /** Starts what fits into the free slots, without a pass. */
  async fill(): Promise<void> {
    do await this.start();
    while (this.moreWaiting && !this.node.closing && this.freeSlots > 0);
  }

  /** The same, if the last claim left anything behind. */
  async refill(): Promise<void> {
    if (this.moreWaiting && !this.node.closing && this.freeSlots > 0)
      await this.fill();
  }

  /** Claims and launches one job, apart from passes and free slots. */
  async launch(claiming: Promise<Claim>): Promise<JobRun> {
    const launching = claiming.then(async ({ jobRun, claimed }) => {
      await this.runs.launch(claimed);
      return jobRun;
    });
    this.launching.add(launching);
    try {
      return await launching;
    } finally {
      this.launching.delete(launching);
    }
  }

  /** Resolves when nothing is being claimed or launched. */
  async idle(): Promise<void> {
    await Promise.allSettled([this.pass, this.filling, ...this.launching]);
  }

  get freeSlots(): number {
    return this.settings.role === 'producer'
      ? 0
      : Math.max(0, this.settings.concurrency - this.processes.size);
  }

  /**
   * Who asks for a pass while the guard is being let go is not forgotten either: nothing is awaited
   * between the last look at `lookAgain` and the end of the pass.
   */
  private async passes(insist: boolean): Promise<JobEngineResults> {
    try {
      const results = await this.guarded(insist);
      while (this.lookAgain && !this.node.closing) {
        const more = await this.guarded(true);
        results.start.push(...more.start);
        results.expire.push(...more.expire);
        results.alreadyRunning &&= more.alreadyRunning;
      }
      return results;
    } finally {
      this.pass = undefined;
    }
  }

  private async guarded(insist: boolean): Promise<JobEngineResults> {
    this.lookAgain = false;
    const term = await this.guard.acquire(insist);
    const results = nothingDone();
    if (term === null) return results;
    results.alreadyRunning = false;
    try {
      do {
        this.lookAgain = false;
        results.expire.push(...(await this.expire()));
        results.start.push(...(await this.start()));
      } while (this.lookAgain || (await this.guard.release(term)));
    } catch (error) {
      await this.guard.drop(term).catch(() => undefined);
      throw error;
    }
    this.tell(term, results);
    return results;
  }

  private tell(term: string, { start, expire }: JobEngineResults): void {
    this.events.emit('engine.pass', {
      node: this.node.id,
      term,
      started: countOutcomes(start).okCount,
      expired: countOutcomes(expire).okCount,
      errors: countOutcomes([...start, ...expire]).errorCount,
    });
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

const nothingDone = (): JobEngineResults => ({
  start: [],
  expire: [],
  alreadyRunning: true,
});
