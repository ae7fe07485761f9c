import { RunNotActiveError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// complete_a_job: the run ends as SUCCEEDED and its entry leaves the queue. Deviation from
// upstream: only a run that is still RUNNING can be completed.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
afterAll(() => bildad.close());

it('completeJob ends the run as SUCCEEDED with the output and removes the entry', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  const ended = await engine.completeJob(run, { by: 'hand' });
  expect(ended).toMatchObject({
    id: run.id,
    status: 'DONE',
    result: 'SUCCEEDED',
    reason: null,
    output: { by: 'hand' },
  });
  expect(ended.endedAt).toBeInstanceOf(Date);
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toBeNull();
});

it('completeJob rejects a run that is DONE and changes nothing', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  await GatedJob.arrival();
  await engine.failJob(run, new Error('first'));
  await expect(engine.completeJob(run)).rejects.toBeInstanceOf(RunNotActiveError);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { result: 'FAILED', reason: 'first' },
  ]);
});
