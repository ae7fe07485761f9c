import {
  type EntryFate,
  type JobEventMap,
  type JobRun,
  type OutcomeKind,
  BildadConfigError,
  InvalidJobContextError,
  JobContextVersionError,
  JobEncryptionKeyError,
  JobHandlerNotFoundError,
  JobNotAvailableError,
  JobQueueStatus,
  JobTemplateInactiveError,
  refuseUnknown,
} from 'nestjs-bildad';
import { In, MoreThan, Raw } from 'typeorm';
import type { TestEngine } from './engines.js';
import { setTimeout as pause } from 'node:timers/promises';
import { WAITS_FOR_KEY } from './clock.js';
import { DrainLimitError } from './errors.js';

/** A run that has ended. */
export interface FinishedRun {
  /** The code of its template. */
  code: string;
  outcome: OutcomeKind;
  /** What happened to the job: `'reopened'` when it will run again. */
  entry: EntryFate;
  /** The run as stored. */
  run: JobRun;
}

type Ended = JobEventMap['run.finished'][0];

/** Records the ends of runs until it is closed. */
export class Ends {
  readonly ended: Ended[] = [];
  private readonly begun = new Set<string>();
  private readonly over = new Set<string>();
  private wake: () => void = () => undefined;
  private readonly stop: (() => void)[];

  constructor({ events }: TestEngine) {
    const end = (jobRunId: string) => {
      this.over.add(jobRunId);
      this.wake();
    };
    this.stop = [
      events.on('run.started', ({ jobRunId }) => this.expect(jobRunId)),
      events.on('run.finished', (run) => {
        this.ended.push(run);
        end(run.jobRunId);
      }),
      events.on('run.finishRejected', ({ jobRunId }) => end(jobRunId)),
    ];
  }

  expect(jobRunId: string): void {
    this.begun.add(jobRunId);
  }

  /** Resolves when all expected runs have ended. */
  async all(): Promise<void> {
    while ([...this.begun].some((run) => !this.over.has(run)))
      await new Promise<void>((resolve) => {
        this.wake = resolve;
      });
  }

  close(): void {
    for (const off of this.stop) off();
  }
}

/** The runs in the order of their ends. */
export async function finishedRuns(
  { dataSource, entities }: TestEngine,
  ended: readonly Ended[],
): Promise<FinishedRun[]> {
  const ids = ended.map(({ jobRunId }) => jobRunId);
  const rows = await dataSource.getRepository(entities.JobRun).findBy({ id: In(ids) });
  const byId = new Map(rows.map((run) => [run.id, run]));
  return ended.flatMap(({ jobRunId, templateCode, outcome, entry }) => {
    const run = byId.get(jobRunId);
    return run ? [{ code: templateCode, outcome, entry, run }] : [];
  });
}

/** The guard of a dead node is free after its lease, 15 s by default. */
const GUARD_MS = 20_000;
const LOOK_MS = 10;
const PASSED_BY = [
  InvalidJobContextError,
  JobContextVersionError,
  JobEncryptionKeyError,
  JobHandlerNotFoundError,
  JobNotAvailableError,
  JobTemplateInactiveError,
];

export interface DrainOptions {
  /** Retries failed and snoozed jobs at once, whatever their backoff. Default `false`. */
  withRetries?: boolean;
  /** Runs scheduled jobs (`runAt`, `delay`) at once, the earliest first. Default `false`. */
  withScheduled?: boolean;
  /** Maximum number of runs; more throw a DrainLimitError. Default 1,000. */
  limit?: number;
}

/** @throws BildadConfigError */
export function readDrainOptions(given: DrainOptions = {}) {
  refuseUnknown(given, ['withRetries', 'withScheduled', 'limit'], '', 'drain');
  const { withRetries = false, withScheduled = false, limit = 1_000 } = given;
  if (!Number.isSafeInteger(limit) || limit < 1)
    throw new BildadConfigError('limit', 'must be an integer from 1', {
      got: limit,
      where: 'drain',
    });
  return { withRetries, withScheduled, limit };
}

/** Runs due jobs, and the jobs that they enqueue. @param isOver whether the app closes: an unfinished pass would keep the guard. @throws DrainLimitError */
export async function drainAll(
  engines: readonly TestEngine[],
  options: Required<DrainOptions>,
  isOver: () => boolean,
): Promise<FinishedRun[]> {
  const all: FinishedRun[] = [];
  const add = (runs: FinishedRun[]) => {
    all.push(...runs);
    if (all.length > options.limit)
      throw new DrainLimitError(options.limit, [...new Set(all.slice(-5).map(({ code }) => code))]);
    return runs.length > 0;
  };
  for (let more = true; more;) {
    more = false;
    for (const engine of engines) {
      while (!isOver() && add(await pass(engine))) more = true;
      if (!isOver() && add(await runEarly(engine, options))) more = true;
    }
  }
  return all;
}

/** Runs the next due job of the first engine that has one. */
export async function runOne(engines: readonly TestEngine[]): Promise<FinishedRun | null> {
  for (const engine of engines) {
    const [run] = await pass(engine);
    if (run) return run;
  }
  return null;
}

/** Runs a pass of the engine. @returns the runs that it started, or ended without starting them */
function pass(engine: TestEngine): Promise<FinishedRun[]> {
  return ended(engine, async (ends) => {
    const giveUpAt = performance.now() + GUARD_MS;
    let looks = 0;
    for (;;) {
      const { start, alreadyRunning } = await engine.service.runJobEngine();
      for (const one of start) if (one.ok) ends.expect(one.jobRun.id);
      if (!alreadyRunning) return;
      // The guard is this engine's own: the rollback of a handler's transaction undid its release.
      if (engine.pools.isShared && ++looks % 5 === 0)
        await engine.dataSource.query(
          `UPDATE "${engine.schema}"."job_configs" SET guard_expires_at = NULL WHERE name = $1`,
          [engine.name],
        );
      // A background pass of this engine, or one of another app that has ended without releasing the guard.
      if (performance.now() > giveUpAt)
        throw new Error(
          `the passes of engine "${engine.name}" are another node's: give each test file a database of its own (createTestDatabase)`,
        );
      await pause(LOOK_MS);
    }
  });
}

/** Runs one job that is not due yet. */
async function runEarly(
  engine: TestEngine,
  { withRetries, withScheduled }: Required<DrainOptions>,
): Promise<FinishedRun[]> {
  if (!withRetries && !withScheduled) return [];
  const retry = withRetries ? (withScheduled ? undefined : MoreThan(0)) : 0;
  const waiting = await engine.dataSource.getRepository(engine.entities.JobQueueEntry).find({
    where: {
      status: JobQueueStatus.AVAILABLE,
      // It becomes due when the holder of its key ends.
      runAt: Raw((runAt) => `${runAt} <> '${WAITS_FOR_KEY}'`),
      ...(retry !== undefined && { retry }),
    },
    order: { runAt: 'ASC', priority: 'ASC', id: 'ASC' },
  });
  for (const entry of waiting) {
    const runs = await ended(engine, async (ends) => {
      const run = await engine.service.runJob(entry).catch(passedBy);
      if (run) ends.expect(run.id);
    });
    // A job without a handler in this app keeps waiting.
    if (runs.length > 0) return runs;
  }
  return [];
}

/** Ignores errors of the job itself, so that `drain` continues with the next one, as a pass does. */
function passedBy(error: unknown): null {
  for (const kind of PASSED_BY) if (error instanceof kind) return null;
  throw error;
}

async function ended(
  engine: TestEngine,
  work: (ends: Ends) => Promise<void>,
): Promise<FinishedRun[]> {
  const ends = new Ends(engine);
  try {
    await work(ends);
    await ends.all();
  } finally {
    ends.close();
  }
  return finishedRuns(engine, ends.ended);
}
