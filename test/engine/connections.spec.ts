import { ScheduleModule } from '@nestjs/schedule';
import { expect, it } from 'vitest';
import { bootApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

it('an enqueue in a transaction needs no second connection, even when transactions hold the whole pool', async () => {
  const bildad = await bootApp({ providers: [SimpleJob] });
  try {
    const { dataSource, engine, jobs } = bildad;
    // TypeORM's pool has ten connections by default.
    const inTransaction = () =>
      dataSource.transaction(async (manager) => {
        await manager.query('SELECT 1');
        await engine.enqueueJob(SimpleJob, {}, { manager });
      });
    await Promise.all(Array.from({ length: 30 }, inTransaction));
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(30);
  } finally {
    await bildad.close();
  }
});

it("a draining job keeps its lease although the host's ScheduleModule clears its registry", async () => {
  const bildad = await bootApp({
    providers: [GatedJob],
    imports: [ScheduleModule.forRoot()],
    options: { shutdown: { drainTimeout: '20s' } },
  });
  const other = await bootApp({
    database: bildad.database,
    options: { role: 'worker' },
  });
  try {
    const { engine, app, jobs, sql } = bildad;
    await jobs.updateJobConfig({ leaseMs: 1_000 });
    await engine.runJobEngine();
    const run = await engine.enqueueAndRunJob(GatedJob, {});
    const { door } = await GatedJob.arrival();
    const lease = async () =>
      (await sql(`SELECT expires_at FROM bildad.job_runs WHERE id = $1`, [run.id]))[0]
        .expires_at as Date;
    const closed = app.close();
    const first = await other.database
      .sql('SELECT expires_at FROM bildad.job_runs WHERE id = $1', [run.id])
      .then(([row]) => row.expires_at as Date);
    // After three lease times this node still owns the run.
    await expect
      .poll(async () => (await lease()).getTime() - first.getTime(), {
        timeout: 10_000,
      })
      .toBeGreaterThan(3_000);
    expect((await other.engine.runJobEngine()).expire).toEqual([]);
    door.open('in time');
    await closed;
    expect(await other.jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
      { result: 'SUCCEEDED', output: 'in time' },
    ]);
  } finally {
    await other.close();
    await bildad.close();
  }
});

it('a node that could not reach the database does not expire the leases that ran out in that time', async () => {
  const bildad = await bootApp({ providers: [GatedJob] });
  try {
    const { engine, jobs, sql } = bildad;
    await jobs.updateJobConfig({ leaseMs: 1_000 });
    await engine.runJobEngine();
    const run = await engine.enqueueAndRunJob(GatedJob, {});
    const { door } = await GatedJob.arrival();
    await sql('ALTER TABLE bildad.job_queue_entries RENAME TO away');
    await expect(engine.runJobEngine()).rejects.toThrow('job_queue_entries');
    await sql('ALTER TABLE bildad.away RENAME TO job_queue_entries');
    await sql(`UPDATE bildad.job_runs SET expires_at = clock_timestamp() - interval '1 s'`);
    expect((await engine.runJobEngine()).expire).toEqual([]);
    // The next heartbeat renews the lease.
    await expect
      .poll(
        async () =>
          (await sql('SELECT expires_at > clock_timestamp() AS alive FROM bildad.job_runs'))[0]
            .alive,
      )
      .toBe(true);
    door.open(null);
    expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
      retry: 0,
      result: 'SUCCEEDED',
    });
  } finally {
    await bildad.close();
  }
});

it('a claim whose answer was lost is released without trace', async () => {
  const bildad = await bootApp({ providers: [GatedJob] });
  try {
    const { engine, jobs, sql, events } = bildad;
    await jobs.updateJobConfig({ leaseMs: 1_000 });
    const passed = new Promise<string>((resolve) => {
      events.on('engine.pass', ({ node }) => resolve(node));
    });
    await engine.runJobEngine();
    const entry = await engine.enqueueJob(GatedJob, {}, { maxRetries: 0 });
    // Has the effect of a claim whose answer is lost.
    await sql(
      `WITH born AS (
         INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
           job_context, available_at, timeout_at, expires_at)
         SELECT job_template_id, id, job_run_identifier, 0, 'lost', $1, '{}', run_at, clock_timestamp() + interval '1 h',
           clock_timestamp() + interval '0.4 s' FROM bildad.job_queue_entries RETURNING id)
       UPDATE bildad.job_queue_entries SET status = 'RUNNING', retry = 1, current_job_run_id = born.id FROM born`,
      [await passed],
    );
    await expect
      .poll(() => jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier))
      .toMatchObject({ status: 'AVAILABLE', retry: 0, currentJobRunId: null });
    expect(await jobs.getNumberOfJobRuns()).toBe(0);
  } finally {
    await bildad.close();
  }
});

it('a duration beyond the limit of a timer does not fire at once', async () => {
  const bildad = await bootApp({
    providers: [GatedJob],
    options: {
      tickInterval: '30d',
      shutdown: { drainTimeout: '30d', killGracePeriod: '30d' },
    },
  });
  const { engine, app, database } = bildad;
  await engine.enqueueAndRunJob(GatedJob, {});
  const { door, job } = await GatedJob.arrival();
  const closed = app.close();
  for (let turn = 0; turn < 50; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(job.signal.aborted).toBe(false);
  door.open(null);
  await closed;
  expect(await database.sql('SELECT result FROM bildad.job_runs')).toEqual([
    { result: 'SUCCEEDED' },
  ]);
  await bildad.close();
});
