import { BildadConfigError, JobHandlerNotFoundError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// enqueue_and_run_job: enqueues a job and runs it at once on this node, regardless of the jobs that
// wait. No deviation from upstream.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [GatedJob, SimpleJob],
    options: { concurrency: 1 },
  });
});
afterAll(() => bildad.close());

it('the job runs before jobs of a higher priority, even when no slot is free', async () => {
  const { engine, jobs } = bildad;
  const first = await engine.enqueueAndRunJob(GatedJob, {});
  const holder = await GatedJob.arrival();
  await engine.enqueueJob(GatedJob, {}, { jobRunIdentifier: 'urgent', priority: -9 });
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { priority: 9 });
  expect(run).toMatchObject({ status: 'RUNNING', retry: 0 });
  const arrival = await GatedJob.arrival();
  expect(arrival.job.jobRunId).toBe(run.id);
  expect(await jobs.listJobsToRunInTheQueue()).toMatchObject([{ jobRunIdentifier: 'urgent' }]);
  arrival.door.open('past the others');
  holder.door.open(null);
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    id: run.id,
    output: 'past the others',
  });
  await engine.waitForJob(first.jobRunIdentifier);
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
});

it('the call resolves with the run when a pass of the engine claimed the entry first', async () => {
  const { engine, jobs } = bildad;
  // A pass that starts when the entry is committed races with the call. In both cases there is
  // exactly one run.
  let pass: Promise<unknown> | undefined;
  const off = bildad.events.on('entry.enqueued', () => {
    pass = engine.runJobEngine();
  });
  for (let round = 0; round < 10; round++) {
    const run = await engine.enqueueAndRunJob(SimpleJob, { say: round });
    await pass;
    expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
      id: run.id,
      output: round,
    });
    expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toHaveLength(1);
  }
  off();
});

it('a node without the handler rejects the call and enqueues nothing', async () => {
  const producer = await bootApp({
    database: bildad.database,
    options: { role: 'producer' },
  });
  await expect(
    producer.engine.enqueueAndRunJob('SIMPLE', {}, { jobRunIdentifier: 'far' }),
  ).rejects.toBeInstanceOf(JobHandlerNotFoundError);
  await producer.close();
  // An entry left behind would become a second job when the caller retries on another node.
  expect(await bildad.jobs.getJobQueueEntryForIdentifier('far')).toBeNull();
});

it('the call rejects a transaction, because an uncommitted job cannot run', async () => {
  const { engine, dataSource, jobs } = bildad;
  await expect(
    engine.enqueueAndRunJob(SimpleJob, {}, {
      manager: dataSource.manager,
    } as object),
  ).rejects.toBeInstanceOf(BildadConfigError);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
});
