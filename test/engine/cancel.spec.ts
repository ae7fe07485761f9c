import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// A cancelled job does not return to the queue, however its current run ends and on whichever node.

let one: TestApp;
let other: TestApp;
beforeAll(async () => {
  one = await bootApp({ providers: [GatedJob] });
  other = await bootApp({ providers: [GatedJob], database: one.database });
});
afterAll(async () => {
  await other.close();
  await one.close();
});

const entryOf = (identifier: string) => one.jobs.getJobQueueEntryForIdentifier(identifier);

it('a cancelled job that fails before its node receives the request does not return', async () => {
  const run = await one.engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  expect(await other.engine.cancelJob({ id: run.jobQueueEntryId })).toBeNull();
  await one.engine.failJob(run, new Error('failed'));
  expect(await entryOf(run.jobRunIdentifier)).toBeNull();
});

it('a cancelled job of a lost node does not return when its run expires', async () => {
  const run = await one.engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  await other.engine.cancelJob({ id: run.jobQueueEntryId });
  await one.engine.expireJob(run);
  expect(await entryOf(run.jobRunIdentifier)).toBeNull();
});

it('a job that fails and is cancelled at the same moment leaves the queue', async () => {
  for (let round = 0; round < 30; round++) {
    const run = await one.engine.enqueueAndRunJob(GatedJob, {});
    await GatedJob.arrival();
    const ends = one.engine.failJob(run, new Error('failed')).catch(() => undefined);
    for (let turn = 0; turn < round; turn++) await Promise.resolve();
    await one.engine.cancelJob({ id: run.jobQueueEntryId });
    await ends;
    expect(await entryOf(run.jobRunIdentifier)).toBeNull();
  }
});

it('a cancelled claim that was never started is not released to the queue', async () => {
  const { engine, jobs, sql } = one;
  await jobs.updateJobConfig({ leaseMs: 1_000 });
  await engine.runJobEngine();
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  (await GatedJob.arrival()).door.open(null);
  const { nodeId } = await engine.waitForJob(run.jobRunIdentifier);
  const entry = await engine.enqueueJob(GatedJob, {}, { delay: '1h' });
  // A claim that no node starts, with a cancel request from another node.
  await sql(
    `WITH born AS (
       INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
         job_context, kill_requested, available_at, timeout_at, expires_at)
       SELECT job_template_id, id, job_run_identifier, 0, 'lost', $1, '{}', 'cancelled', run_at,
         clock_timestamp() + interval '1 h', clock_timestamp() + interval '0.3 s'
       FROM bildad.job_queue_entries WHERE id = $2 RETURNING id)
     UPDATE bildad.job_queue_entries e SET status = 'RUNNING', retry = 1, current_job_run_id = born.id FROM born WHERE e.id = $2`,
    [nodeId, entry.id],
  );
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    reason: 'Cancelled',
  });
  expect(await entryOf(entry.jobRunIdentifier)).toBeNull();
});
