import { BildadConfigError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// enqueue_job_and_trigger_engine: enqueues, then runs the engine now, so that jobs of a higher priority go first.
// Ours never starts a second engine: a pass under way, here or on another node, is told to look again.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [GatedJob, SimpleJob],
    options: { concurrency: 1 },
  });
});
afterAll(() => bildad.close());

it('enqueues and runs the engine now', async () => {
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

it('lets a job of a higher priority go first', async () => {
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

it('of many at once no pass is lost: the one under way looks again', async () => {
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

it('takes no transaction: what is not committed cannot run', async () => {
  const { engine, dataSource, jobs } = bildad;
  const before = await jobs.getNumberOfJobsInTheQueue();
  await expect(
    engine.enqueueJobAndTriggerEngine(SimpleJob, {}, {
      manager: dataSource.manager,
    } as object),
  ).rejects.toBeInstanceOf(BildadConfigError);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(before);
});
