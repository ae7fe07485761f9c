import type { EngineContext } from '../database/engine-context.js';
import type { Quarantine } from '../lifecycle/claim/quarantine.js';
import type { Suspects } from '../lifecycle/claim/suspects.js';
import { promoteScheduled } from '../lifecycle/enqueue/enqueue.sql.js';
import { advanceKeys, pruneKeys } from '../lifecycle/enqueue/enqueue.sql.js';
import type { Pass, PassStep } from '../lifecycle/extension-points.js';
import type { FinishRuns } from '../lifecycle/finish/finish-runs.js';
import { reopenOrphans } from '../lifecycle/finish/finish-runs.sql.js';
import type { LateRunRows } from '../lifecycle/run/late-run-rows.js';
import { expiredFacts, findRuns, type LostRun } from '../lifecycle/run/run.sql.js';
import { LostNodeDetector, outcomeOfLostRun } from '../membership/lost-node-detector.js';
import { pruneNodes } from '../membership/node.sql.js';
import type { RunLeases } from '../membership/run-leases.js';
import type { JobOutcome } from './slots.js';
import { UNRUNNABLE_AFTER_MS, unrunnableJobs } from './unrunnable-jobs.sql.js';

const PROMOTED_PER_STATEMENT = 5_000;
const KEYS_PER_STATEMENT = 1_000;
/** A pass must not take long: the next one continues. */
const KEY_STATEMENTS_PER_PASS = 20;
/** Orphaned entries are searched once in so many leases: ten minutes with the default lease. */
const LEASES_PER_ORPHAN_SWEEP = 40;
const ALARM_EVERY_MS = 60_000;

interface StepParts {
  engine: EngineContext;
  expireRuns: ExpireRuns;
  leases: RunLeases;
  lateRows: LateRunRows;
  quarantine: Quarantine;
  finishRuns: FinishRuns;
}

/**
 * The engine's own pass steps, in their order: what expires is reopened before jobs are promoted, and both before the
 * pass starts jobs. Features add theirs behind them.
 *
 * The steps that read every entry run once per lease: 0.4 s with a million entries (docs/plans.md).
 */
export function engineSteps(parts: StepParts): PassStep[] {
  const { engine, expireRuns, leases, lateRows, quarantine, finishRuns } = parts;
  const { store, node, events } = engine;
  const { db, tables } = store;
  const oncePerLease = (name: string, run: PassStep['run'], leases = 1): PassStep => ({
    name,
    run,
    get every() {
      return leases * node.leaseMs;
    },
  });
  const inEachPass = (name: string, run: PassStep['run']): PassStep => ({ name, run, every: 0 });
  return [
    oncePerLease('write run rows of lost nodes', async () => {
      if (!(await leases.areReliable())) return undefined;
      const isFull = (await lateRows.writeOfLostNodes(node.batchSize)) === node.batchSize;
      return isFull ? 'more' : undefined;
    }),
    oncePerLease(
      'reopen orphaned entries',
      async () => {
        await quarantine.sweep();
        await reopenOrphans(db, tables, node.batchSize);
      },
      LEASES_PER_ORPHAN_SWEEP,
    ),
    inEachPass('expire runs', () => expireRuns.run()),
    inEachPass('end missed jobs', () =>
      quarantine.retryWithoutMalformed(() => finishRuns.finishMissedEntries()),
    ),
    inEachPass('advance keys', (pass) =>
      repeat(pass, Infinity, PROMOTED_PER_STATEMENT, (limit) => advanceKeys(db, tables, limit)),
    ),
    // Promotes all due jobs, so that priority decides among them.
    inEachPass('promote scheduled jobs', (pass) =>
      repeat(pass, Infinity, PROMOTED_PER_STATEMENT, (limit) =>
        node.closing
          ? Promise.resolve(0)
          : quarantine.retryWithoutMalformed(() => promoteScheduled(db, tables, limit)),
      ),
    ),
    oncePerLease('prune nodes', async () => void (await pruneNodes(db, tables))),
    oncePerLease('prune keys', (pass) =>
      repeat(pass, KEY_STATEMENTS_PER_PASS, KEYS_PER_STATEMENT, (limit) =>
        pruneKeys(db, tables, limit),
      ),
    ),
    {
      name: 'report unrunnable jobs',
      every: ALARM_EVERY_MS,
      async run() {
        for (const jobs of await unrunnableJobs(db, tables, UNRUNNABLE_AFTER_MS))
          events.emit('engine.unrunnable', jobs);
      },
    },
  ];
}

/** Repeats a statement until it finds fewer rows than its limit. @returns 'more' if rows may be left */
async function repeat(
  { deadline }: Pass,
  statements: number,
  limit: number,
  run: (limit: number) => Promise<number>,
): Promise<'more' | void> {
  for (let n = 0; n < statements; n++) {
    if ((await run(limit)) < limit) return;
    if (performance.now() >= deadline) break;
  }
  return 'more';
}

/** Declares nodes lost, and ends the runs whose lease is over. */
export class ExpireRuns {
  private readonly detector: LostNodeDetector;
  private outcomes: JobOutcome[] = [];
  /** Lost nodes have more late rows than one statement writes. */
  private moreRows = false;

  constructor(
    private readonly engine: EngineContext,
    private readonly leases: RunLeases,
    private readonly lateRows: LateRunRows,
    private readonly finishRuns: FinishRuns,
    private readonly suspects: Suspects,
  ) {
    this.detector = new LostNodeDetector(engine);
  }

  async run(): Promise<void> {
    if (!(await this.leases.areReliable())) return this.detector.forget();
    const { store, node } = this.engine;
    const { db, tables } = store;
    // The jobs of a lost node do not wait for the step that runs once per lease.
    if ((await this.detector.detect()) > 0 || this.moreRows)
      this.moreRows = (await this.lateRows.writeOfLostNodes(node.batchSize)) === node.batchSize;
    const expired = await expiredFacts(db, tables, node.batchSize);
    if (expired.some(({ crashes }) => crashes > 0)) this.suspects.expectNow();
    const ended: string[] = [];
    await Promise.all(
      expired.map(async (run) => {
        try {
          if (await this.endRun(run)) ended.push(run.jobRunId);
        } catch (error) {
          this.outcomes.push({ ok: false, error });
        }
      }),
    );
    if (ended.length === 0) return;
    for (const jobRun of await findRuns(db, tables, ended))
      this.outcomes.push({ ok: true, jobRun });
  }

  /** The outcomes of the runs that expired since the last call. */
  takeOutcomes(): JobOutcome[] {
    return this.outcomes.splice(0);
  }

  private endRun(run: LostRun) {
    const outcome = outcomeOfLostRun(run, this.engine.settings.maxCrashes);
    return this.finishRuns.finish(run, outcome, { onlyIfExpired: true });
  }
}
