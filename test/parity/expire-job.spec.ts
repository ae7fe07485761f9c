import { JobKilledError, RunNotActiveError } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';
import { lockRows } from '../support/lock.js';

// expire_a_job: a run that no node runs any more is FAILED with "Expired", and its entry is retried
// or removed. Upstream waits 30 days. Here the engine finds such runs by the lease that their node
// no longer renews.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
afterEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries'));
afterAll(() => bildad.close());

const loseLease = (run: { id: string }) =>
  bildad.sql(`UPDATE bildad.job_runs SET expires_at = now() - interval '1 s' WHERE id = $1`, [
    run.id,
  ]);

it('expireJob fails the run as Expired, and its entry is retried', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { backoff: '1h' });
  const { job } = await GatedJob.arrival();
  expect(await engine.expireJob(run)).toMatchObject({
    id: run.id,
    status: 'DONE',
    result: 'FAILED',
    reason: 'Expired',
  });
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toMatchObject({
    status: 'AVAILABLE',
    retry: 1,
    scheduled: true,
  });
  // The run was on this node after all, so its signal is aborted.
  expect(job.signal.reason).toBeInstanceOf(JobKilledError);
});

it('expireJob removes the entry when no retry is left', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  await GatedJob.arrival();
  await engine.expireJob(run);
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toBeNull();
});

it('expireJob rejects a run that is DONE and changes nothing', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  (await GatedJob.arrival()).door.open(null);
  await engine.waitForJob(run.jobRunIdentifier);
  await expect(engine.expireJob(run)).rejects.toBeInstanceOf(RunNotActiveError);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { result: 'SUCCEEDED', reason: null },
  ]);
});

it('the engine expires only runs whose lease has expired, up to the last retry', async () => {
  const { engine, jobs } = bildad;
  const alive = await engine.enqueueAndRunJob(GatedJob, { name: 'alive' });
  const living = await GatedJob.arrival();
  const lost = await engine.enqueueAndRunJob(
    GatedJob,
    { name: 'lost' },
    { maxRetries: 1, jobRunIdentifier: 'lost' },
  );
  const arrivals = [await GatedJob.arrival()];
  await loseLease(lost);
  expect(await jobs.listExpiredJobs()).toMatchObject([{ id: lost.id }]);
  const first = await engine.runJobEngine();
  expect(first).toMatchObject({
    expire: [{ ok: true, jobRun: { id: lost.id, reason: 'Expired' } }],
    start: [{ ok: true, jobRun: { jobRunIdentifier: 'lost', retry: 1 } }],
  });
  arrivals.push(await GatedJob.arrival());
  await loseLease({ id: arrivals[1]!.job.jobRunId });
  expect(await engine.runJobEngine()).toMatchObject({
    expire: [{ ok: true, jobRun: { retry: 1, reason: 'Expired' } }],
    start: [],
  });
  expect(await jobs.getJobQueueEntryForIdentifier('lost')).toBeNull();
  expect(await jobs.listRunningJobRuns()).toMatchObject([{ id: alive.id }]);
  for (const { door } of [...arrivals, living]) door.open(null);
  await engine.waitForJob(alive.jobRunIdentifier);
});

it('an expired process cannot change its run or the next run', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true });
  const old = await GatedJob.arrival();
  await loseLease(run);
  await engine.runJobEngine();
  const young = await GatedJob.arrival();
  const late = bildad.next('run.finishRejected');
  old.door.open('of the old process');
  expect(await late).toMatchObject({ jobRunId: run.id, outcome: 'completed' });
  expect(await jobs.listRunningJobRuns()).toMatchObject([{ id: young.job.jobRunId }]);
  young.door.open('of the young one');
  await engine.waitForJob(run.jobRunIdentifier);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { reason: 'Expired', output: null },
    { result: 'SUCCEEDED', output: 'of the young one' },
  ]);
});

it('the heartbeat renews a running run, also right after the lease was shortened', async () => {
  const app = await bootApp({ providers: [GatedJob] });
  const { engine, jobs } = app;
  await jobs.updateJobConfig({ leaseMs: 2000 });
  // The new lease applies from the next pass.
  await engine.runJobEngine();
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { door, job } = await GatedJob.arrival();
  /** Time from start to expiry, in milliseconds. */
  const lease = async () => {
    const [seen] = await jobs.listJobRunsForIdentifier(run.jobRunIdentifier);
    return seen!.expiresAt.getTime() - seen!.startedAt.getTime();
  };
  expect(await lease()).toBe(2000);
  // The run stays on this node over several passes, well beyond its first lease.
  const expired: unknown[] = [];
  await expect
    .poll(async () => {
      expired.push(...(await engine.runJobEngine()).expire);
      return lease();
    })
    .toBeGreaterThan(4500);
  expect(expired).toEqual([]);
  expect(job.signal.aborted).toBe(false);
  const done = engine.waitForJob(run.jobRunIdentifier);
  door.open(null);
  expect(await done).toMatchObject({ id: run.id, result: 'SUCCEEDED' });
  await app.close();
});

it('the heartbeat skips a locked run and renews the others', async () => {
  const app = await bootApp({ providers: [GatedJob] });
  await app.jobs.updateJobConfig({ leaseMs: 1000 });
  await app.engine.runJobEngine();
  const first = await app.engine.enqueueAndRunJob(GatedJob, {});
  const { door: firstDoor } = await GatedJob.arrival();
  const second = await app.engine.enqueueAndRunJob(GatedJob, {});
  const { door, job } = await GatedJob.arrival();
  const release = await lockRows(app, 'SELECT 1 FROM bildad.job_runs WHERE id = $1', [second.id]);
  const expiry = async (id: string) => {
    const [run] = await app.sql<{ at: Date }>(
      'SELECT expires_at AS at FROM bildad.job_runs WHERE id = $1',
      [id],
    );
    return run!.at.getTime();
  };
  const before = await expiry(second.id);
  await expect.poll(() => expiry(first.id)).toBeGreaterThan(before);
  expect(await expiry(second.id)).toBe(before);
  // The skipped run is not treated as lost.
  expect(job.signal.aborted).toBe(false);
  await release();
  for (const one of [firstDoor, door]) one.open(null);
  await app.engine.waitForJob(second.jobRunIdentifier);
  await app.close();
});

it('the heartbeat aborts a process whose run was expired on another node', async () => {
  const app = await bootApp({ providers: [GatedJob] });
  await app.jobs.updateJobConfig({ leaseMs: 1000 });
  await app.engine.runJobEngine();
  const otherNode = await bootApp({ database: app.database });
  const run = await app.engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  const { job } = await GatedJob.arrival();
  const late = app.next('run.finishRejected');
  await otherNode.engine.expireJob(run);
  expect(await late).toMatchObject({ jobRunId: run.id, outcome: 'failed' });
  expect(job.signal.reason).toBeInstanceOf(JobKilledError);
  await otherNode.close();
  await app.close();
});

it('a completion wins over an expiry that was decided on an older read', async () => {
  const { engine, dataSource } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { door } = await GatedJob.arrival();
  await loseLease(run);
  const process = engine.findJobProcess(run)!;
  const query = dataSource.query.bind(dataSource);
  let found = 0;
  const spy = vi
    .spyOn(dataSource, 'query')
    .mockImplementation(async (...call: [any, any?, any?]) => {
      const answer: unknown[] = await query(...call);
      if (!String(call[0]).includes('ORDER BY r.id LIMIT')) return answer;
      found += answer.length;
      // The run was alive all the time, and completes before the pass ends it.
      await query(
        `UPDATE bildad.job_runs SET expires_at = now() + interval '1 minute' WHERE id = $1`,
        [run.id],
      );
      door.open('well');
      await process.settled;
      return answer;
    });
  expect(await engine.runJobEngine()).toMatchObject({ expire: [] });
  spy.mockRestore();
  expect(found).toBe(1);
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    id: run.id,
    result: 'SUCCEEDED',
    output: 'well',
  });
});
