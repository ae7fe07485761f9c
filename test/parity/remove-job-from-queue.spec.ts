import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// remove_job_from_queue: deletes the entry of a finished or unwanted job. No deviation from
// upstream.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
afterAll(() => bildad.close());

it('removeJobFromQueue deletes a waiting entry, and the job never runs', async () => {
  const { engine, jobs } = bildad;
  const unwanted = await engine.enqueueJob(GatedJob, {});
  const wanted = await engine.enqueueJob(GatedJob, {});
  await engine.removeJobFromQueue(unwanted);
  expect(await jobs.listAllJobsInTheQueue()).toMatchObject([{ id: wanted.id }]);
  expect((await engine.runJobEngine()).start).toMatchObject([
    { jobRun: { jobQueueEntryId: wanted.id } },
  ]);
  (await GatedJob.arrival()).door.open(null);
  await engine.waitForJob(wanted.jobRunIdentifier);
  expect(await jobs.getNumberOfJobRuns()).toBe(1);
});

it.each([
  ['succeeds', null, { result: 'SUCCEEDED' }],
  ['fails, with retries left', new Error('no'), { result: 'FAILED', reason: 'no' }],
])(
  'a running job whose entry is removed continues, %s, and ends in the history',
  async (_how, error, end) => {
    const { engine, jobs } = bildad;
    const entry = await engine.enqueueJob(GatedJob, {}, { maxRetries: 9 });
    const run = await engine.runJob(entry);
    const { job, door } = await GatedJob.arrival();
    await engine.removeJobFromQueue(entry);
    expect(job.signal.aborted).toBe(false);
    const finished = bildad.next('run.finished');
    if (error) await engine.failJob(run, error);
    else door.open(null);
    expect(await finished).toMatchObject({ jobRunId: run.id, entry: 'kept' });
    expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject(end);
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
  },
);

it('removeJobFromQueue ignores an entry that is already removed', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  await engine.removeJobFromQueue(entry);
  await expect(engine.removeJobFromQueue(entry)).resolves.toBeUndefined();
});
