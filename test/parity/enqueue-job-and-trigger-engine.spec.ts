import { BildadConfigError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// enqueue_job_and_trigger_engine: enqueues a job, then runs the engine, so that jobs of a higher
// priority start first. Deviation from upstream: no second engine starts. A running pass, here or
// on another node, repeats its scan instead.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [GatedJob, SimpleJob],
    options: { concurrency: 1 },
  });
});
afterAll(() => bildad.close());

it('the call enqueues the job and runs the engine at once', async () => {
  const { engine } = bildad;
  const { jobQueueEntry, jobEngineResults } = await engine.enqueueJobAndTriggerEngine(SimpleJob, {
    say: 'hello',
  });
  expect(jobQueueEntry).toMatchObject({ status: 'AVAILABLE' });
  expect(jobEngineResults).toMatchObject({
    alreadyRunning: false,
    expire: [],
    start: [
      {
        ok: true,
        jobRun: { jobRunIdentifier: jobQueueEntry.jobRunIdentifier },
      },
    ],
  });
  expect(await engine.waitForJob(jobQueueEntry.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
    output: 'hello',
  });
});

it('a job of a higher priority starts first', async () => {
  const { engine, jobs } = bildad;
  await engine.enqueueJob(GatedJob, {}, { jobRunIdentifier: 'urgent', priority: 1 });
  const { jobEngineResults } = await engine.enqueueJobAndTriggerEngine(
    GatedJob,
    {},
    { jobRunIdentifier: 'usual' },
  );
  expect(jobEngineResults.start).toMatchObject([{ jobRun: { jobRunIdentifier: 'urgent' } }]);
  expect(await jobs.listJobsToRunInTheQueue()).toMatchObject([{ jobRunIdentifier: 'usual' }]);
  for (const name of ['urgent', 'usual']) {
    await engine.runJobEngine();
    const { job, door } = await GatedJob.arrival();
    expect(job.jobRunIdentifier).toBe(name);
    const slotFree = bildad.next('run.finished');
    door.open(null);
    await slotFree;
    await expect.poll(() => engine.findJobProcess({ id: job.jobRunId })).toBe(null);
  }
});

it('concurrent calls lose no pass, because the running pass repeats its scan', async () => {
  const app = await bootApp({
    providers: [SimpleJob],
    options: { concurrency: 100 },
  });
  const triggered = await Promise.all(
    Array.from({ length: 20 }, () => app.engine.enqueueJobAndTriggerEngine(SimpleJob, {})),
  );
  expect(triggered.some(({ jobEngineResults }) => jobEngineResults.alreadyRunning)).toBe(true);
  const runs = await Promise.all(
    triggered.map(({ jobQueueEntry }) => app.engine.waitForJob(jobQueueEntry.jobRunIdentifier)),
  );
  expect(runs.every(({ result }) => result === 'SUCCEEDED')).toBe(true);
  expect(await app.jobs.getNumberOfJobRuns()).toBe(20);
  await app.close();
});

it('the call rejects a transaction, because an uncommitted job cannot run', async () => {
  const { engine, dataSource, jobs } = bildad;
  const before = await jobs.getNumberOfJobsInTheQueue();
  await expect(
    engine.enqueueJobAndTriggerEngine(SimpleJob, {}, {
      manager: dataSource.manager,
    } as object),
  ).rejects.toBeInstanceOf(BildadConfigError);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(before);
});
