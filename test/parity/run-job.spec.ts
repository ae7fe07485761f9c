import {
  JobHandlerNotFoundError,
  JobNotAvailableError,
  JobTemplateInactiveError,
} from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// run_a_job: claims this entry, creates its run and launches it, and resolves when the run is
// launched. Deviation from upstream: the claim is a compare-and-set, so one of ten concurrent
// callers on any nodes runs it.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob, SimpleJob] });
});
afterAll(() => bildad.close());

it('runJob claims the entry, creates its run and resolves while it runs', async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(GatedJob, { name: 'one' });
  const run = await engine.runJob(entry);
  const { context, job, door } = await GatedJob.arrival();
  expect(run).toMatchObject({
    jobQueueEntryId: entry.id,
    jobRunIdentifier: entry.jobRunIdentifier,
    jobTemplateId: entry.jobTemplateId,
    retry: 0,
    status: 'RUNNING',
    result: null,
    endedAt: null,
    jobContext: { name: 'one' },
  });
  expect(run.timeoutAt.getTime() - run.startedAt.getTime()).toBe(3_600_000);
  expect(context).toEqual({ name: 'one' });
  expect(job).toMatchObject({
    jobRunId: run.id,
    jobRunIdentifier: entry.jobRunIdentifier,
    template: { code: 'GATED' },
    retry: 0,
    attempt: 1,
    deadline: run.timeoutAt,
  });
  expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
    status: 'RUNNING',
    currentJobRunId: run.id,
  });
  door.open('done');
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    id: run.id,
    status: 'DONE',
    result: 'SUCCEEDED',
    output: 'done',
  });
});

it('the runs of an entry are numbered', async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, { fail: 'again' }, { maxRetries: 1 });
  for (const retry of [0, 1]) {
    const finished = bildad.next('run.finished');
    expect(await engine.runJob(entry)).toMatchObject({ retry });
    await finished;
  }
  expect(await jobs.listJobRunsForIdentifier(entry.jobRunIdentifier)).toMatchObject([
    { retry: 0 },
    { retry: 1 },
  ]);
});

it('one of ten concurrent callers on two nodes runs the entry', async () => {
  const { engine, jobs } = bildad;
  const other = await bootApp({
    database: bildad.database,
    providers: [GatedJob],
  });
  const entry = await engine.enqueueJob(GatedJob, {});
  const settled = await Promise.allSettled(
    Array.from({ length: 10 }, (_, caller) => (caller % 2 ? engine : other.engine).runJob(entry)),
  );
  const refusals = settled.flatMap((end) =>
    end.status === 'rejected' ? [end.reason as Error] : [],
  );
  expect(refusals.map((error) => error.constructor)).toEqual(Array(9).fill(JobNotAvailableError));
  (await GatedJob.arrival()).door.open(null);
  await engine.waitForJob(entry.jobRunIdentifier);
  expect(await jobs.listJobRunsForIdentifier(entry.jobRunIdentifier)).toHaveLength(1);
  expect(GatedJob.arrivals).toEqual([]);
  await other.close();
});

it('runJob runs an entry before its runAt', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, {}, { delay: '1h' });
  await engine.runJob(entry);
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
});

it('runJob rejects an entry that is removed', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, {});
  await engine.removeJobFromQueue(entry);
  await expect(engine.runJob(entry)).rejects.toBeInstanceOf(JobNotAvailableError);
});

it('runJob rejects an entry without a handler or of an inactive template, and the entry stays AVAILABLE without a run', async () => {
  const { engine, jobs } = bildad;
  const template = await jobs.createJobTemplate({ code: 'ELSEWHERE' });
  const entry = await engine.enqueueJob('ELSEWHERE', {});
  await expect(engine.runJob(entry)).rejects.toBeInstanceOf(JobHandlerNotFoundError);
  const simple = await engine.enqueueJob(SimpleJob, {});
  const { id } = (await jobs.listJobTemplates()).find(({ code }) => code === 'SIMPLE')!;
  await jobs.updateJobTemplate({ id }, { active: false });
  await expect(engine.runJob(simple)).rejects.toBeInstanceOf(JobTemplateInactiveError);
  for (const { jobRunIdentifier } of [entry, simple]) {
    expect(await jobs.getJobQueueEntryForIdentifier(jobRunIdentifier)).toMatchObject({
      status: 'AVAILABLE',
      retry: 0,
    });
    expect(await jobs.listJobRunsForIdentifier(jobRunIdentifier)).toEqual([]);
  }
  await jobs.updateJobTemplate({ id }, { active: true });
  await engine.removeJobFromQueue(entry);
  await engine.removeJobFromQueue(simple);
  await jobs.deleteJobTemplate(template);
});

it('the return value and the reason and error of a failure are stored', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(SimpleJob, { say: { n: [1] } });
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
    reason: null,
    output: { n: [1] },
  });
  const threw = await engine.enqueueAndRunJob(SimpleJob, { fail: 'no paper' }, { maxRetries: 0 });
  expect(await engine.waitForJob(threw.jobRunIdentifier)).toMatchObject({
    result: 'FAILED',
    reason: 'no paper',
    output: null,
    error: { name: 'Error', message: 'no paper' },
  });
});
