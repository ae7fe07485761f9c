import type { FinishRuns } from '../lifecycle/finish/finish.js';
import type { Quarantine } from '../lifecycle/claim/quarantine.js';
import type { Store } from '../database/store.js';
import type { JobEvents } from '../job/events.js';
import type { NodeState } from '../job/node-state.js';
import { countOutcomes } from '../job/outcome-counts.js';
import { promoteScheduled } from '../lifecycle/enqueue/enqueue.sql.js';
import { advanceKeys } from '../lifecycle/enqueue/unique-keys.sql.js';
import { expiredFacts, findRuns, type LostRun } from '../lifecycle/run/run.sql.js';
import type { UnrunnableAlarm } from './unrunnable-jobs.js';
import type { SingleRunnerGuard } from './guard.js';
import type { Heartbeat } from '../membership/heartbeat.js';
import type { NodeJudge } from '../membership/lost-node-detector.js';
import { endOfLost } from '../membership/lost-run-outcome.js';
import type { JobOutcome } from './launch.js';
import type { Slots } from './slots.js';
import type { Suspects } from './suspects.js';
import type { Sweep } from './sweep.js';
import type { VersionWatch } from './version-watch.js';

const PROMOTED_AT_ONCE = 5_000;

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
    private readonly heartbeat: Heartbeat,
    private readonly slots: Slots,
    private readonly finishRuns: FinishRuns,
    private readonly versions: VersionWatch,
    private readonly sweep: Sweep,
    private readonly quarantine: Quarantine,
    private readonly alarm: UnrunnableAlarm,
    private readonly judge: NodeJudge,
    private readonly suspects: Suspects,
    private readonly events: JobEvents,
    private readonly node: NodeState,
    private readonly maxCrashes: number,
  ) {}

  /** @param insist if a pass is under way, here or on another node, make it look once more */
  run({ insist = true } = {}): Promise<JobEngineResults> {
    // It would keep the guard from others for a lease: the connection may be gone before it is let go.
    if (this.node.closing) return Promise.resolve({ ...nothingDone(), alreadyRunning: false });
    if (this.pass) {
      this.lookAgain ||= insist;
      return Promise.resolve(nothingDone());
    }
    this.pass = this.passes(insist);
    return this.pass;
  }

  /** Resolves when no pass is under way. */
  async idle(): Promise<void> {
    while (this.pass) await this.pass.catch(() => undefined);
  }

  /**
   * A pass, and one more for who asked while its guard was being let go. Who asks after that has a pass
   * of his own in the background: a caller is not kept for as long as others ask. Nothing is awaited
   * between the last look at `lookAgain` and the end of the pass, so nobody is forgotten.
   */
  private async passes(insist: boolean): Promise<JobEngineResults> {
    try {
      const results = await this.guarded(insist);
      if (this.lookAgain && !this.node.closing) {
        const more = await this.guarded(true);
        results.start.push(...more.start);
        results.expire.push(...more.expire);
        results.alreadyRunning &&= more.alreadyRunning;
      }
      return results;
    } finally {
      this.pass = undefined;
      if (this.lookAgain && !this.node.closing) this.inBackground();
    }
  }

  private inBackground(): void {
    this.lookAgain = false;
    this.run().catch((error: unknown) =>
      this.events.emit('engine.error', {
        doing: 'a pass of the engine',
        error,
      }),
    );
  }

  private async guarded(insist: boolean): Promise<JobEngineResults> {
    this.lookAgain = false;
    const results = nothingDone();
    if (!(await this.versions.usable())) return { ...results, alreadyRunning: false };
    const term = await this.guard.acquire(insist);
    if (term === null) return results;
    results.alreadyRunning = false;
    try {
      await this.look(results, insist);
      if (this.lookAgain || (await this.guard.release(term))) {
        this.lookAgain = false;
        await this.look(results, insist);
        // Asked once more by another node: a pass of its own.
        if (await this.guard.release(term)) {
          this.lookAgain = true;
          await this.guard.drop(term);
        }
      }
    } catch (error) {
      this.heartbeat.failed();
      await this.guard.drop(term).catch(() => undefined);
      throw error;
    }
    this.tell(term, results);
    return results;
  }

  private async look(results: JobEngineResults, insist: boolean): Promise<void> {
    results.expire.push(...(await this.expire()));
    results.start.push(...(await this.slots.start(insist ? 'whole' : 'affordable')));
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
    const { db, tables } = this.store;
    const limit = this.node.batchSize;
    let lost: LostRun[] = [];
    if (await this.heartbeat.canJudge()) {
      const lostNodes = await this.judge.judge();
      await this.sweep.run(lostNodes > 0);
      lost = await expiredFacts(db, tables, limit);
      if (lost.some(({ crashes }) => crashes > 0)) this.suspects.made();
    } else this.judge.forget();
    const ended: string[] = [];
    const outcomes: JobOutcome[] = [];
    const end = async (run: LostRun) => {
      try {
        const landed = await this.finishRuns.finish(run, endOfLost(run, this.maxCrashes), {
          onlyIfExpired: true,
        });
        if (landed) ended.push(run.jobRunId);
      } catch (error) {
        outcomes.push({ ok: false, error });
      }
    };
    await Promise.all(lost.map(end));
    if (ended.length > 0)
      for (const jobRun of await findRuns(db, tables, ended)) outcomes.push({ ok: true, jobRun });
    await this.quarantine.around(() => this.finishRuns.finishMissedEntries());
    await this.makeDue();
    await this.alarm.run();
    return outcomes;
  }

  /** All that is due by now, so that priority decides among them. */
  private async makeDue(): Promise<void> {
    const { db, tables } = this.store;
    while ((await advanceKeys(db, tables, PROMOTED_AT_ONCE)) === PROMOTED_AT_ONCE);
    let promoted: number;
    do
      promoted = await this.quarantine.around(() => promoteScheduled(db, tables, PROMOTED_AT_ONCE));
    while (promoted === PROMOTED_AT_ONCE && !this.node.closing);
  }
}

const nothingDone = (): JobEngineResults => ({
  start: [],
  expire: [],
  alreadyRunning: true,
});
