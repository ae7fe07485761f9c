import { BildadJob, InvalidJobContextError, type JobHandler } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';
import { lockRows, waitingForLock } from '../support/lock.js';

// run_job_engine: one pass. It expires runs whose lease has expired, then starts available jobs up
// to the batch size. A bad job never stops the others. Deviation from upstream: a guard in the
// database ensures that one node at a time runs a pass.

@BildadJob({
  code: 'COUNT',
  context: { type: 'object', properties: { n: { type: 'integer' } } },
})
class CountJob implements JobHandler<{ n: number }> {
  runJob({ n }: { n: number }): number {
    return n;
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob, CountJob],
    options: { concurrency: 8 },
  });
});
afterEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs'));
afterAll(() => bildad.close());

const GUARD = `SELECT FROM bildad.job_configs WHERE name = 'default'`;
const idOf = (outcome: { ok: boolean; jobRun?: { jobRunIdentifier: string } }) =>
  outcome.jobRun?.jobRunIdentifier;

it('a pass with nothing to do returns empty lists', async () => {
  expect(await bildad.engine.runJobEngine()).toEqual({
    start: [],
    expire: [],
    alreadyRunning: false,
  });
});

it('a pass expires runs first and starts the jobs that it reopened', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const lost = await GatedJob.arrival();
  await bildad.sql(`UPDATE bildad.job_runs SET expires_at = now() - interval '1 s' WHERE id = $1`, [
    run.id,
  ]);
  expect(await engine.runJobEngine()).toMatchObject({
    expire: [{ ok: true, jobRun: { id: run.id, reason: 'Expired' } }],
    start: [
      {
        ok: true,
        jobRun: { jobRunIdentifier: run.jobRunIdentifier, retry: 1 },
      },
    ],
  });
  lost.door.open('too late');
  (await GatedJob.arrival()).door.open('in time');
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    retry: 1,
    output: 'in time',
  });
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toHaveLength(2);
});

it('a pass starts as many jobs as slots are free, and more once a slot is free', async () => {
  const { engine, jobs } = bildad;
  await engine.enqueueJobs(
    GatedJob,
    Array.from({ length: 10 }, () => ({})),
  );
  expect((await engine.runJobEngine()).start).toHaveLength(8);
  expect((await engine.runJobEngine()).start).toEqual([]);
  expect(await jobs.listRunningJobsInTheQueue()).toHaveLength(8);
  for (let left = 10; left > 0; left--) {
    const { job, door } = await GatedJob.arrival();
    const finished = bildad.next('run.finished');
    door.open(null);
    await finished;
    await expect.poll(() => engine.findJobProcess({ id: job.jobRunId })).toBeNull();
    if (left > 2) expect((await engine.runJobEngine()).start).toHaveLength(left > 8 ? 1 : 0);
  }
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

it('a pass starts at most one batch', async () => {
  const { engine, jobs } = bildad;
  await jobs.updateJobConfig({ batchSize: 2 });
  const added = await engine.enqueueJobs(SimpleJob, [{}, {}, {}]);
  const passes = [await engine.runJobEngine(), await engine.runJobEngine()];
  expect(passes.map(({ start }) => start.length)).toEqual([2, 1]);
  for (const { jobRunIdentifier } of added) await engine.waitForJob(jobRunIdentifier);
  await jobs.updateJobConfig({ batchSize: 1000 });
});

it('a pass starts the good jobs around a bad one and reports the bad one', async () => {
  const { engine } = bildad;
  const added = await engine.enqueueJobs(CountJob, [{ n: 1 }, { n: 2 }, { n: 3 }]);
  await bildad.sql(
    `UPDATE bildad.job_queue_entries SET job_context = '{"n":"two"}' WHERE id = $1`,
    [added[1]!.id],
  );
  const { start } = await engine.runJobEngine();
  expect(start).toMatchObject([{ ok: true }, { ok: false }, { ok: true }]);
  expect(start[1]).toHaveProperty('error', expect.any(InvalidJobContextError));
  expect(engine.getCounts(start)).toEqual({ okCount: 2, errorCount: 1 });
  for (const { jobRunIdentifier } of added) await engine.waitForJob(jobRunIdentifier);
});

it('a pass skips jobs without a local handler and jobs of inactive templates', async () => {
  const { engine, jobs } = bildad;
  const foreign = await jobs.createJobTemplate({ code: 'FOREIGN' });
  await engine.enqueueJob('FOREIGN', {}, { priority: 0 });
  await engine.enqueueJob(CountJob, { n: 1 }, { priority: 1 });
  const count = (await jobs.listJobTemplates()).find(({ code }) => code === 'COUNT')!;
  await jobs.updateJobTemplate(count, { active: false });
  const { jobRunIdentifier } = await engine.enqueueJob(SimpleJob, {});
  const { start } = await engine.runJobEngine();
  expect(start.map(idOf)).toEqual([jobRunIdentifier]);
  await engine.waitForJob(jobRunIdentifier);
  await jobs.updateJobTemplate(count, { active: true });
  expect((await engine.runJobEngine()).start).toHaveLength(1);
  await expect.poll(() => jobs.getNumberOfJobsInTheQueue()).toBe(1);
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  await jobs.deleteJobTemplate(foreign);
});

it('a pass does nothing while another node holds the guard, and takes over when the guard expires', async () => {
  const { engine } = bildad;
  const hold = (until: string) =>
    bildad.sql(
      `UPDATE bildad.job_configs SET guard_holder = 'another node', guard_round_requested = false,
         guard_expires_at = now() + $1::interval`,
      [until],
    );
  const { jobRunIdentifier } = await engine.enqueueJob(SimpleJob, {});
  await hold('1 minute');
  expect(await engine.runJobEngine()).toEqual({
    start: [],
    expire: [],
    alreadyRunning: true,
  });
  // The request for another scan, left for the holder.
  expect(
    await bildad.sql(
      'SELECT guard_round_requested AS asked, guard_holder AS holder FROM bildad.job_configs',
    ),
  ).toEqual([{ asked: true, holder: 'another node' }]);
  await hold('-1 second');
  expect((await engine.runJobEngine()).start.map(idOf)).toEqual([jobRunIdentifier]);
  await engine.waitForJob(jobRunIdentifier);
});

it('two concurrent nodes run each job once', async () => {
  const { engine, jobs } = bildad;
  const other = await bootApp({
    database: bildad.database,
    providers: [SimpleJob, GatedJob, CountJob],
  });
  const added = await engine.enqueueJobs(
    CountJob,
    Array.from({ length: 60 }, (_, n) => ({ n })),
  );
  const nodes = [engine, other.engine];
  await expect
    .poll(async () => {
      await Promise.all(nodes.flatMap((node) => [node.runJobEngine(), node.runJobEngine()]));
      return jobs.getNumberOfJobsInTheQueue();
    })
    .toBe(0);
  for (const { jobRunIdentifier } of added) await engine.waitForJob(jobRunIdentifier);
  expect(await jobs.getNumberOfJobRuns()).toBe(60);
  await other.close();
});

it('a pass requested while another pass releases the guard is not lost', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  const lost = await GatedJob.arrival();
  await bildad.sql(`UPDATE bildad.job_runs SET expires_at = now() - interval '1 s' WHERE id = $1`, [
    run.id,
  ]);
  // The guard is locked while the pass searches expired runs, so that the pass waits where it
  // releases the guard.
  const { dataSource } = bildad;
  const query = dataSource.query.bind(dataSource);
  let unlockGuard: (() => Promise<void>) | undefined;
  const spy = vi
    .spyOn(dataSource, 'query')
    .mockImplementation(async (...call: [any, any?, any?]) => {
      if (String(call[0]).includes('ORDER BY r.id LIMIT'))
        unlockGuard ??= await lockRows(bildad, GUARD);
      return query(...call);
    });
  const first = engine.runJobEngine();
  await waitingForLock(bildad, 'guard_round_requested AS requested');
  spy.mockRestore();

  const { jobRunIdentifier } = await engine.enqueueJob(SimpleJob, {});
  expect(await engine.runJobEngine()).toMatchObject({ alreadyRunning: true });
  await unlockGuard!();
  expect((await first).start.map(idOf)).toEqual([jobRunIdentifier]);
  await engine.waitForJob(jobRunIdentifier);
  const late = bildad.next('run.finishRejected');
  lost.door.open(null);
  await late;
});

it('a pass requested by a listener of the last pass is not lost', async () => {
  const { engine } = bildad;
  let asked: Promise<unknown> | undefined;
  const off = bildad.events.on('engine.pass', () => {
    asked ??= engine.runJobEngine();
  });
  const passes: string[] = [];
  const count = bildad.events.on('engine.pass', ({ term }) => passes.push(term));
  await engine.runJobEngine();
  await asked;
  off();
  count();
  expect(passes).toHaveLength(2);
});
