import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// A stale run cannot change the newer run of its entry.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
afterAll(() => bildad.close());

it('the late success of a stale run changes neither the newer run nor the entry', async () => {
  const { engine, jobs, next } = bildad;
  const old = await engine.enqueueAndRunJob(GatedJob, {});
  const oldHandler = await GatedJob.arrival();
  await engine.stopJobInQueue({ id: old.jobQueueEntryId });
  expect(oldHandler.job.signal.aborted).toBe(false);

  await engine.runJobEngine();
  const newHandler = await GatedJob.arrival();
  expect(newHandler.job).toMatchObject({
    retry: 1,
    attempt: 2,
    jobRunIdentifier: old.jobRunIdentifier,
  });

  const lost = next('run.finishRejected');
  oldHandler.door.open('too late');
  expect(await lost).toMatchObject({ jobRunId: old.id, outcome: 'completed' });
  expect(await jobs.listJobRunsForIdentifier(old.jobRunIdentifier)).toMatchObject([
    {
      id: old.id,
      status: 'DONE',
      result: 'FAILED',
      reason: 'Stopped',
      output: null,
    },
    { id: newHandler.job.jobRunId, status: 'RUNNING', result: null },
  ]);
  expect(await jobs.getJobQueueEntryForIdentifier(old.jobRunIdentifier)).toMatchObject({
    status: 'RUNNING',
    currentJobRunId: newHandler.job.jobRunId,
  });

  newHandler.door.open('in time');
  expect(await engine.waitForJob(old.jobRunIdentifier)).toMatchObject({
    id: newHandler.job.jobRunId,
    result: 'SUCCEEDED',
    output: 'in time',
  });
});

it('manual ends of a stale run are refused while the newer run continues', async () => {
  const { engine, jobs } = bildad;
  const old = await engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  await engine.expireJob(old);
  await engine.runJobEngine();
  const newHandler = await GatedJob.arrival();

  for (const end of [
    () => engine.completeJob(old),
    () => engine.failJob(old, new Error('late')),
    () => engine.expireJob(old),
    () => engine.killJob(old),
  ])
    await expect(end()).rejects.toMatchObject({ code: 'RUN_NOT_ACTIVE' });
  expect(await jobs.getJobQueueEntryForIdentifier(old.jobRunIdentifier)).toMatchObject({
    status: 'RUNNING',
    currentJobRunId: newHandler.job.jobRunId,
  });
  newHandler.door.open(null);
  await engine.waitForJob(old.jobRunIdentifier);
});

it('a stale run that was left RUNNING by a manual edit does not change the newer run', async () => {
  const { engine, jobs, sql, next } = bildad;
  const old = await engine.enqueueAndRunJob(GatedJob, {});
  const oldHandler = await GatedJob.arrival();
  await sql(`UPDATE bildad.job_queue_entries SET status = 'AVAILABLE' WHERE id = $1`, [
    old.jobQueueEntryId,
  ]);
  await engine.runJobEngine();
  const newHandler = await GatedJob.arrival();

  const finished = next('run.finished');
  oldHandler.door.open(null);
  expect(await finished).toMatchObject({ jobRunId: old.id, entry: 'kept' });
  expect(await jobs.getJobQueueEntryForIdentifier(old.jobRunIdentifier)).toMatchObject({
    status: 'RUNNING',
    currentJobRunId: newHandler.job.jobRunId,
  });
  newHandler.door.open(null);
  expect(await engine.waitForJob(old.jobRunIdentifier)).toMatchObject({
    id: newHandler.job.jobRunId,
  });
});

it('deleting run rows, even of a running job, neither deletes nor strands an entry', async () => {
  const { engine, jobs, sql, next } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const first = await GatedJob.arrival();
  await sql('DELETE FROM bildad.job_runs');
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toMatchObject({
    status: 'RUNNING',
  });

  const lost = next('run.finishRejected');
  first.door.open('after the deletion');
  await lost;
  const { start } = await engine.runJobEngine();
  expect(start).toMatchObject([
    { ok: true, jobRun: { jobRunIdentifier: run.jobRunIdentifier, retry: 1 } },
  ]);
  (await GatedJob.arrival()).door.open('second run');
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    retry: 1,
    result: 'SUCCEEDED',
  });
});

it('a run number that is taken is skipped and delays no other job', async () => {
  const { engine, sql } = bildad;
  const blocked = await engine.enqueueJob(GatedJob, {}, { jobRunIdentifier: 'taken', priority: 0 });
  await sql(
    `INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id, status,
       result, job_context, available_at, timeout_at, expires_at, ended_at)
     SELECT job_template_id, 0, 'taken', 0, 'taken#0', 'nowhere', 'DONE', 'FAILED', '{}', now(), now(), now(), now()
     FROM bildad.job_queue_entries WHERE id = $1`,
    [blocked.id],
  );
  const behind = await engine.enqueueJob(GatedJob, {});
  expect((await engine.runJobEngine()).start).toMatchObject([
    { ok: true, jobRun: { jobRunIdentifier: behind.jobRunIdentifier } },
  ]);
  expect((await engine.runJobEngine()).start).toMatchObject([
    { ok: true, jobRun: { jobRunIdentifier: 'taken', retry: 1 } },
  ]);
  (await GatedJob.arrival()).door.open(null);
  (await GatedJob.arrival()).door.open(null);
  await Promise.all([engine.waitForJob('taken'), engine.waitForJob(behind.jobRunIdentifier)]);
});
