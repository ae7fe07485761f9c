import { setTimeout } from 'node:timers/promises';
import { BildadJob } from 'nestjs-bildad';
import { expect, it } from 'vitest';
import { bootApp } from '../support/app.js';
import { createDatabase } from '../support/database.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// A node that starts jobs fast prefetches more than its free slots. It releases the prefetched claims when it stops.

it('a stopping node releases its prefetched claims, and the entries are unchanged', async () => {
  const database = await createDatabase();
  const bildad = await bootApp({
    database,
    providers: [SimpleJob, GatedJob],
    options: {
      tickInterval: 10,
      concurrency: 1,
      shutdown: { drainTimeout: '20s' },
    },
  });
  try {
    const { engine, dataSource, app } = bildad;
    // Fast jobs first, so that the node prefetches, then one that takes its only slot.
    await dataSource.transaction(async (manager) => {
      await engine.enqueueJobs(
        SimpleJob,
        Array.from({ length: 500 }, () => ({})),
        { manager, priority: 1 },
      );
      await engine.enqueueJob(
        GatedJob,
        {},
        { manager, priority: 2, jobRunIdentifier: 'holds the slot' },
      );
      await engine.enqueueJobs(
        SimpleJob,
        Array.from({ length: 500 }, () => ({})),
        { manager, priority: 3 },
      );
    });
    const { door } = await GatedJob.arrival();
    const prefetched = await database.sql(
      `SELECT count(*)::int AS n FROM bildad.job_queue_entries WHERE status = 'RUNNING' AND job_run_identifier <> 'holds the slot'`,
    );
    expect(prefetched[0].n).toBeGreaterThan(0);

    const closed = app.close();
    await expect
      .poll(() => database.sql(`SELECT 1 FROM bildad.job_queue_entries WHERE status = 'RUNNING'`))
      .toHaveLength(1);
    door.open(null);
    await closed;

    const [left] = await database.sql(
      `SELECT count(*)::int AS entries, count(*) FILTER (WHERE status = 'AVAILABLE' AND retry = 0 AND uncounted_runs = 0
         AND current_job_run_id IS NULL)::int AS untouched FROM bildad.job_queue_entries`,
    );
    const [runs] = await database.sql(
      `SELECT count(*)::int AS all, count(*) FILTER (WHERE result = 'SUCCEEDED')::int AS succeeded FROM bildad.job_runs`,
    );
    expect(left.untouched).toBe(left.entries);
    expect(runs.succeeded).toBe(runs.all);
    expect(runs.all + left.entries).toBe(1001);
    expect(left.entries).toBeGreaterThan(0);
  } finally {
    await bildad.close();
    await database.drop();
  }
});

it('a node does not prefetch behind slow jobs or without ticks', async () => {
  const bildad = await bootApp({
    providers: [GatedJob],
    options: { tickInterval: 10, concurrency: 1 },
  });
  try {
    await bildad.engine.enqueueJobs(GatedJob, [{}, {}, {}]);
    const { door } = await GatedJob.arrival();
    for (let pass = 0; pass < 3; pass++) await bildad.next('engine.pass');
    expect(await bildad.jobs.listRunningJobRuns()).toHaveLength(1);
    door.open(null);
    for (let left = 0; left < 2; left++) (await GatedJob.arrival()).door.open(null);
    await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);
  } finally {
    await bildad.close();
  }
});

it('a prefetched claim can be cancelled and stopped', async () => {
  const bildad = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { tickInterval: 10, concurrency: 1 },
  });
  try {
    const { engine, dataSource, sql, jobs } = bildad;
    await dataSource.transaction(async (manager) => {
      await engine.enqueueJobs(
        SimpleJob,
        // Enough jobs that the node claims hundreds at once.
        Array.from({ length: 3_000 }, () => ({})),
        { manager, priority: 1 },
      );
      await engine.enqueueJob(GatedJob, {}, { manager, priority: 2 });
      await engine.enqueueJobs(
        SimpleJob,
        Array.from({ length: 500 }, () => ({})),
        { manager, priority: 3, maxRetries: 0 },
      );
    });
    const { door } = await GatedJob.arrival();
    const waiting = await sql(
      `SELECT id::text, job_run_identifier AS name FROM bildad.job_queue_entries
       WHERE status = 'RUNNING' AND priority = 3 ORDER BY id DESC LIMIT 2`,
    );
    expect(waiting).toHaveLength(2);
    expect(await engine.cancelJob(waiting[0])).toBeNull();
    expect(await engine.stopJobInQueue(waiting[1])).toMatchObject({
      reason: 'Stopped',
    });
    // The node's heartbeat receives the cancel request.
    expect(await engine.waitForJob(waiting[0].name)).toMatchObject({
      reason: 'Cancelled',
    });
    door.open(null);
    await expect.poll(() => jobs.getNumberOfJobsInTheQueue()).toBe(0);
    const ends = await sql(
      `SELECT coalesce(reason, result) AS ended, count(*)::int FROM bildad.job_runs GROUP BY 1`,
    );
    expect(Object.fromEntries(ends.map(({ ended, count }) => [ended, count]))).toEqual({
      Cancelled: 1,
      Stopped: 1,
      SUCCEEDED: 3_500,
    });
  } finally {
    await bildad.close();
  }
});

it('claims that wait behind a long job are released to other nodes', async () => {
  const bildad = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { tickInterval: 10, concurrency: 1 },
  });
  try {
    const { engine, dataSource, sql } = bildad;
    await dataSource.transaction(async (manager) => {
      const some = Array.from({ length: 3_000 }, () => ({}));
      await engine.enqueueJobs(SimpleJob, some, { manager, priority: 1 });
      await engine.enqueueJob(GatedJob, {}, { manager, priority: 2 });
      await engine.enqueueJobs(SimpleJob, some, { manager, priority: 3 });
    });
    const { door } = await GatedJob.arrival();
    const running = () =>
      sql(`SELECT priority FROM bildad.job_queue_entries WHERE status = 'RUNNING'`);
    expect((await running()).length).toBeGreaterThan(1);
    await expect.poll(running, { timeout: 10_000 }).toEqual([{ priority: 2 }]);
    door.open(null);
    await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue(), { timeout: 15_000 }).toBe(0);
  } finally {
    await bildad.close();
  }
});

@BildadJob({ code: 'COUNTED' })
class CountedJob {
  static running = 0;
  static maxRunning = 0;
  static readonly started: number[] = [];

  async runJob({ n, slow }: { n: number; slow: boolean }): Promise<void> {
    CountedJob.started.push(n);
    CountedJob.maxRunning = Math.max(CountedJob.maxRunning, ++CountedJob.running);
    if (slow) await setTimeout(5);
    CountedJob.running--;
  }
}

it('prefetched jobs start in order, and never more at a time than there are slots', async () => {
  const bildad = await bootApp({
    providers: [CountedJob],
    options: { tickInterval: 10, concurrency: 10 },
  });
  try {
    // Batches of fast jobs make the node prefetch. Batches of slow jobs hold its slots.
    const contexts = Array.from({ length: 20_000 }, (_, n) => ({
      n,
      slow: n % 300 < 40,
    }));
    await bildad.engine.enqueueJobs(CountedJob, contexts);
    await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue(), { timeout: 30_000 }).toBe(0);
    expect(CountedJob.maxRunning).toBe(10);
    expect(CountedJob.started).toEqual(contexts.map(({ n }) => n));
  } finally {
    await bildad.close();
  }
});
