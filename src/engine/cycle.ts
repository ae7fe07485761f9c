import type { FinishDoor } from '../life/finish.js';
import type { Store } from '../life/store.js';
import type { JobEvents } from '../model/events.js';
import type { RunFacts } from '../model/facts.js';
import type { NodeState } from '../model/node.js';
import { countOutcomes } from '../policy/counts.js';
import { promoteScheduled } from '../store/enqueue.store.js';
import { reopenOrphans } from '../store/finish.store.js';
import { expiredFacts, findRuns } from '../store/run.store.js';
import type { SingleRunnerGuard } from './guard.js';
import type { JobOutcome, Slots } from './slots.js';

export interface JobEngineResults {
  start: JobOutcome[];
  expire: JobOutcome[];
  /** A pass was under way, here or on another node; it was told to look once more. */
  alreadyRunning: boolean;
}

/**
 * The engine's pass: expire what is expired, make due what is scheduled, start what is available by
 * priority and age. A constant number of statements, whatever it finds. Between passes, and while
 * another node's pass is under way, a node fills its own slots.
 */
export class EngineCycle {
  private pass: Promise<JobEngineResults> | undefined;
  private lookAgain = false;

  constructor(
    private readonly store: Store,
    private readonly guard: SingleRunnerGuard,
    private readonly slots: Slots,
    private readonly door: FinishDoor,
    private readonly events: JobEvents,
    private readonly node: NodeState,
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

  /** Resolves when no pass is under way. */
  async idle(): Promise<void> {
    await this.pass?.catch(() => undefined);
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
        results.start.push(...(await this.slots.start()));
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
    const ended: string[] = [];
    const outcomes: JobOutcome[] = [];
    const end = async (run: RunFacts) => {
      try {
        const landed = await this.door.finish(
          run,
          { kind: 'expired' },
          { onlyIfExpired: true },
        );
        if (landed) ended.push(run.jobRunId);
      } catch (error) {
        outcomes.push({ ok: false, error });
      }
    };
    await Promise.all(lost.map(end));
    if (ended.length > 0)
      for (const jobRun of await findRuns(dataSource, tables, ended))
        outcomes.push({ ok: true, jobRun });
    await reopenOrphans(dataSource, tables, limit);
    await promoteScheduled(dataSource, tables, limit);
    return outcomes;
  }
}

const nothingDone = (): JobEngineResults => ({
  start: [],
  expire: [],
  alreadyRunning: true,
});
