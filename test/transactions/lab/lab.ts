import { fork, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { JobEngineService, JobsService } from 'nestjs-bildad';
import type { DataSource } from 'typeorm';
import { Random } from '../../faults/random.js';
import type { Step } from './worker.js';

export interface LabPlan {
  seed: number;
  jobs: number;
  kills: number;
  /** Nodes at a time. */
  nodes: number;
  /** test/transactions/lab/worker, built. */
  worker: URL;
  databaseUrl: string;
}

export interface LabFigures {
  seed: number;
  jobs: number;
  kills: number;
  /** Of them around a statement of a handler's transaction; the others at any time. */
  killsAtStatements: number;
  stops: number;
  runs: number;
  /** Effects that are not in the ledger exactly once, and jobs that have not succeeded exactly once. */
  violations: unknown[];
}

interface Host {
  engine: JobEngineService;
  jobs: JobsService;
  dataSource: DataSource;
}

/** Beside their own effects, jobs of which each third leaves two more. */
const FAMILY = 3;
const STATEMENTS = 120;
const LONGEST_LIFE_MS = 1_500;
/** What the jobs that are left may take when nobody is killed any more. */
const MOST_MS = 90_000;

/**
 * Nodes that are killed while they run transactional handlers, and jobs that are taken back meanwhile; then what the
 * handlers have written is counted.
 */
export async function runLab(
  { engine, jobs, dataSource }: Host,
  plan: LabPlan,
  say: (text: string) => void = () => undefined,
): Promise<LabFigures> {
  const random = new Random(plan.seed);
  await prepare(dataSource, jobs);
  const names: string[] = [];
  let killed = 0;
  let atStatements = 0;
  let stops = 0;
  const over = new AbortController();

  const enqueueMore = async () => {
    const steps: Step[] = [];
    while (
      names.length < plan.jobs &&
      names.length < (plan.jobs * (killed + plan.nodes)) / plan.kills
    ) {
      const name = `job ${names.length}`;
      const children = random.chance(0.3)
        ? Array.from({ length: FAMILY - 1 }, (_none, n) => `${name}.${n}`)
        : [];
      names.push(name, ...children);
      const failures = random.chance(0.2) ? 1 : 0;
      steps.push({ name, pauseMs: random.below(8), failures, children });
    }
    for (const step of steps)
      await engine.enqueueJob('STEP', step, { jobRunIdentifier: step.name });
  };

  const node = async () => {
    while (killed < plan.kills) {
      const atStatement = random.chance(0.7);
      const when = random.pick(['before', 'sent', 'after']);
      const at = 1 + random.below(STATEMENTS);
      const lifeMs = random.below(LONGEST_LIFE_MS);
      const child = startNode(plan, atStatement ? `${at} ${when}` : '');
      const gone = once(child, 'exit');
      await Promise.race([once(child, 'message'), gone]);
      // One that finds too little to do for its statement is killed as well.
      const alarm = new AbortController();
      await Promise.race([
        gone,
        pause(atStatement ? 3 * LONGEST_LIFE_MS : lifeMs, undefined, {
          signal: alarm.signal,
        }).catch(() => undefined),
      ]);
      alarm.abort();
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
      else atStatements++;
      await gone;
      killed++;
      if (killed % 20 === 0) say(`${killed} kills`);
      await enqueueMore();
    }
  };

  /** Takes jobs back whose handlers go on: what those do must not be committed. */
  const meddler = async () => {
    while (!over.signal.aborted) {
      await pause(20 + random.below(200));
      const [running] = await jobs.listRunningJobsInTheQueue({ limit: 1 });
      if (!running) continue;
      const stopped = await engine.stopJobInQueue(running).catch(() => null);
      if (stopped) stops++;
    }
  };

  await enqueueMore();
  const meddling = meddler();
  await Promise.all(Array.from({ length: plan.nodes }, node));
  over.abort();
  await meddling;
  await enqueueMore();
  say('the last nodes do the rest');
  await finish(plan, jobs);
  const [row] = await dataSource.query<{ n: number }[]>(
    'SELECT count(*)::int AS n FROM bildad.job_runs',
  );
  return {
    seed: plan.seed,
    jobs: names.length,
    kills: killed,
    killsAtStatements: atStatements,
    stops,
    runs: row!.n,
    violations: await violations(dataSource, names),
  };
}

function startNode({ worker, databaseUrl }: LabPlan, dieAt: string): ChildProcess {
  return fork(worker, {
    env: {
      ...process.env,
      DATABASE_URL: databaseUrl,
      LAB_WORKER: 'yes',
      DIE_AT: dieAt,
    },
    execArgv: [],
  });
}

async function prepare(dataSource: DataSource, jobs: JobsService) {
  await dataSource.query(
    `CREATE TABLE ledger (job text, effect text, run_id bigint); CREATE SEQUENCE attempts`,
  );
  await jobs.updateJobConfig({ leaseMs: 1_500 });
}

async function finish(plan: LabPlan, jobs: JobsService): Promise<void> {
  const last = Array.from({ length: plan.nodes }, () => startNode(plan, ''));
  const ends = last.map((child) => once(child, 'exit'));
  const giveUpAt = performance.now() + MOST_MS;
  // What is left over then is a violation.
  while ((await jobs.getNumberOfJobsInTheQueue()) > 0 && performance.now() < giveUpAt)
    await pause(100);
  for (const child of last) child.kill('SIGTERM');
  await Promise.all(ends);
}

/** Each effect is there once, written by the one run of its job that has succeeded. */
async function violations(dataSource: DataSource, names: string[]): Promise<unknown[]> {
  return dataSource.query(
    `SELECT name, effects.n AS effects, runs.n AS succeeded, runs.open FROM unnest($1::text[]) AS name,
       LATERAL (SELECT count(*)::int AS n, count(DISTINCT effect)::int AS kinds, min(run_id) AS first, max(run_id) AS last
                FROM ledger WHERE job = name) effects,
       LATERAL (SELECT count(*) FILTER (WHERE result = 'SUCCEEDED')::int AS n, count(*) FILTER (WHERE status = 'RUNNING')::int AS open,
                  max(id) FILTER (WHERE result = 'SUCCEEDED') AS id
                FROM bildad.job_runs WHERE job_run_identifier = name) runs
     WHERE NOT (effects.n = 2 AND effects.kinds = 2 AND runs.n = 1 AND runs.open = 0
                AND effects.first = runs.id AND effects.last = runs.id)
     UNION ALL
     SELECT job, count(*)::int, NULL, NULL FROM ledger WHERE job <> ALL ($1::text[]) GROUP BY job`,
    [names],
  );
}
