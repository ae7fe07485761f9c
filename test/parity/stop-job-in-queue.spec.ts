import { RunNotActiveError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// stop_job_in_queue: the run is FAILED with "Stopped" and the entry is AVAILABLE again, in the
// database only. The process continues. Deviation from upstream: that process can no longer change
// the run.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
afterAll(() => bildad.close());

it('stopJobInQueue fails the run and reopens the entry at once, and the result of the old process is rejected', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { backoff: '1h' });
  const first = await GatedJob.arrival();
  const entry = (await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier))!;
  expect(await engine.stopJobInQueue(entry)).toMatchObject({
    id: run.id,
    status: 'DONE',
    result: 'FAILED',
    reason: 'Stopped',
  });
  const process = engine.findJobProcess(run)!;
  expect(first.job.signal.aborted).toBe(false);

  // The entry has no backoff, and its next run is concurrent with the old process.
  const second = await engine.runJobEngine();
  expect(second.start).toMatchObject([
    { jobRun: { jobRunIdentifier: run.jobRunIdentifier, retry: 1 } },
  ]);
  const next = await GatedJob.arrival();

  const late = bildad.next('run.finishRejected');
  first.door.open('from the old process');
  expect(await late).toMatchObject({ jobRunId: run.id, outcome: 'completed' });
  await process.settled;
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toMatchObject({
    status: 'RUNNING',
    currentJobRunId: next.job.jobRunId,
  });

  next.door.open('from the new one');
  await engine.waitForJob(run.jobRunIdentifier);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { id: run.id, result: 'FAILED', reason: 'Stopped', output: null },
    { retry: 1, result: 'SUCCEEDED', output: 'from the new one' },
  ]);
});

it('a stopped run counts as a run, and its entry is reopened even when no retry is left', async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {}, { maxRetries: 0 });
  const run = await engine.runJob(entry);
  const first = await GatedJob.arrival();
  await engine.stopJobInQueue(entry);
  const again = await engine.runJob(entry);
  const second = await GatedJob.arrival();
  await engine.failJob(again, new Error('once more'));
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { reason: 'Stopped' },
    { reason: 'once more' },
  ]);
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toBeNull();
  const late = bildad.next('run.finishRejected');
  first.door.open(null);
  await late;
  second.door.open(null);
});

it("the heartbeat does not abort a stopped run's process, and killJob stops it", async () => {
  const app = await bootApp({ providers: [GatedJob] });
  await app.jobs.updateJobConfig({ leaseMs: 1000 });
  await app.engine.runJobEngine();
  const entry = await app.engine.enqueueJob(GatedJob, {});
  const run = await app.engine.runJob(entry);
  const { job } = await GatedJob.arrival();
  await app.engine.stopJobInQueue(entry);
  // The renewal of another run by the same heartbeat shows that a heartbeat has passed.
  const witness = await app.engine.enqueueAndRunJob(GatedJob, {});
  const other = await GatedJob.arrival();
  await expect
    .poll(async () => {
      const [seen] = await app.jobs.listJobRunsForIdentifier(witness.jobRunIdentifier);
      return seen!.expiresAt.getTime();
    })
    .toBeGreaterThan(witness.expiresAt.getTime());
  expect(job.signal.aborted).toBe(false);

  await expect(app.engine.killJob(run)).rejects.toBeInstanceOf(RunNotActiveError);
  expect(job.signal.aborted).toBe(true);
  expect(await app.jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { reason: 'Stopped' },
  ]);
  const done = app.engine.waitForJob(witness.jobRunIdentifier);
  other.door.open(null);
  await done;
  await app.close();
});

it('stopJobInQueue returns null for an entry that is not running or is removed', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  expect(await engine.stopJobInQueue(entry)).toBeNull();
  await engine.removeJobFromQueue(entry);
  expect(await engine.stopJobInQueue(entry)).toBeNull();
});
