import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { promoteScheduled } from '../../src/lifecycle/enqueue/enqueue.sql.js';
import { pruneNotes } from '../../src/features/run-log/run-log.sql.js';
import { tablesOf, type Queryable, type Tables } from '../../src/database/tables.js';
import { TIMED_STATEMENTS } from '../support/timed-statements.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// A pass over n entries sends a constant number of statements.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { concurrency: 500 },
  });
});
afterAll(() => bildad.close());

async function statementsOf(work: () => Promise<unknown>): Promise<number> {
  const spy = vi.spyOn(bildad.dataSource, 'query');
  try {
    await work();
    return spy.mock.calls.filter(([sql]) => !TIMED_STATEMENTS.test(sql)).length;
  } finally {
    spy.mockRestore();
  }
}

const emptyQueue = () => expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);

async function enqueue(n: number, job: typeof SimpleJob | typeof GatedJob): Promise<void> {
  await bildad.engine.enqueueJobs(
    job,
    Array.from({ length: n }, () => ({})),
    { maxRetries: 0 },
  );
}

async function passOver(n: number): Promise<number> {
  await enqueue(n, GatedJob);
  let started = 0;
  const statements = await statementsOf(async () => {
    started = (await bildad.engine.runJobEngine()).start.length;
  });
  expect(started).toBe(n);
  for (let each = 0; each < n; each++) (await GatedJob.arrival()).door.open(null);
  await emptyQueue();
  return statements;
}

it('starting 300 jobs takes as many statements as starting 3', async () => {
  expect(await passOver(300)).toBe(await passOver(3));
});

it('finishing 300 jobs at once takes at most five statements', async () => {
  await enqueue(300, GatedJob);
  await bildad.engine.runJobEngine();
  const finished = new Promise<void>((resolve) => {
    let left = 300;
    const off = bildad.events.on('run.finished', () => {
      if (--left > 0) return;
      off();
      resolve();
    });
  });
  const statements = await statementsOf(async () => {
    for (let each = 0; each < 300; each++) (await GatedJob.arrival()).door.open(null);
    await finished;
  });
  expect(statements).toBeLessThanOrEqual(5);
  await emptyQueue();
});

it('expiring 300 runs takes as many statements as expiring 3', async () => {
  const expiring = async (n: number) => {
    await enqueue(n, GatedJob);
    await bildad.engine.runJobEngine();
    await bildad.sql(
      `UPDATE bildad.job_runs SET expires_at = clock_timestamp() WHERE status = 'RUNNING'`,
    );
    let expired = 0;
    const statements = await statementsOf(async () => {
      expired = (await bildad.engine.runJobEngine()).expire.length;
    });
    expect(expired).toBe(n);
    const lost = Promise.all(
      Array.from({ length: n }, async () => {
        const { door, job } = await GatedJob.arrival();
        const late = bildad.next('run.finishRejected', ({ jobRunId }) => jobRunId === job.jobRunId);
        door.open(null);
        await late;
      }),
    );
    await lost;
    return statements;
  };
  expect(await expiring(300)).toBe(await expiring(3));
});

it('an inactive template keeps its entries waiting', async () => {
  await enqueue(3, SimpleJob);
  await bildad.sql(`UPDATE bildad.job_templates SET active = false WHERE code = 'SIMPLE'`);
  expect((await bildad.engine.runJobEngine()).start).toEqual([]);
  await bildad.sql(`UPDATE bildad.job_templates SET active = true WHERE code = 'SIMPLE'`);
  expect((await bildad.engine.runJobEngine()).start).toHaveLength(3);
  await emptyQueue();
});

/** The index conditions of the statements, with a plan as on a large table. */
async function indexConditions(
  work: (db: Queryable, tables: Tables, limit: number) => Promise<unknown>,
): Promise<string[]> {
  const conditions: string[] = [];
  await bildad.dataSource.transaction(async (within) => {
    await within.query('SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off');
    const explained = {
      query: async (sql: string, values?: unknown[]) => {
        const plan: unknown = await within.query(`EXPLAIN (FORMAT JSON) ${sql}`, values);
        for (const [, condition] of JSON.stringify(plan).matchAll(/"Index Cond":"([^"]*)"/g))
          conditions.push(condition!);
        return [];
      },
    };
    await work(explained, tablesOf('bildad'), 1_000);
  });
  return conditions;
}

it.each([
  ['scheduled entries', promoteScheduled, 'run_at'],
  ['notes', pruneNotes, 'keep_until'],
])('a read of due %s stops at the current time', async (_of, read, column) => {
  expect(await indexConditions(read)).toContainEqual(expect.stringMatching(`^\\(${column} <= `));
});
