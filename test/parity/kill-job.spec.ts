import { once } from 'node:events';
import { JobKilledError, JobTimeoutError, RunNotActiveError } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// kill_a_job: stops the process of a run on this node. The run is FAILED, with "Timeout" when it
// exceeded its timeout, and the entry is retried or removed. Upstream does nothing for a run on
// another node. Deviations: a kill on any node reaches the owning node, each run has a precise
// timer instead of upstream's killer task, and the sweep is its fallback.

let bildad: TestApp;
let other: TestApp;
/** Has a kill grace period of one second. */
let nodeWithGracePeriod: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [GatedJob],
    options: { concurrency: 1 },
  });
  other = await bootApp({ database: bildad.database });
  nodeWithGracePeriod = await bootApp({
    database: bildad.database,
    providers: [GatedJob],
    options: { shutdown: { killGracePeriod: '1s' } },
  });
});
afterEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries'));
afterAll(async () => {
  await other.close();
  await nodeWithGracePeriod.close();
  await bildad.close();
});

const entryOf = (run: { jobRunIdentifier: string }) =>
  bildad.jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier);

it('killJob stops a local process and ends the run as Killed, and the entry is retried', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { job } = await GatedJob.arrival();
  expect(await engine.killJob(run)).toMatchObject({
    id: run.id,
    status: 'DONE',
    result: 'FAILED',
    reason: 'Killed',
    error: null,
  });
  expect(job.signal.reason).toBeInstanceOf(JobKilledError);
  expect(await entryOf(run)).toMatchObject({ status: 'AVAILABLE', retry: 1 });
});

it('killJob removes the entry when no retry is left', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  await GatedJob.arrival();
  await engine.killJob(run);
  expect(await entryOf(run)).toBeNull();
});

it('killJob ends a run that exceeded its timeout as Timeout', async () => {
  const { engine } = nodeWithGracePeriod;
  const run = await engine.enqueueAndRunJob(
    GatedJob,
    { ignoresAbort: true },
    { timeout: 20, maxRetries: 0 },
  );
  const { job, door } = await GatedJob.arrival();
  if (!job.signal.aborted) await once(job.signal, 'abort');
  // The handler is in its grace period, and ends within it.
  const killed = engine.killJob(run);
  door.open(null);
  expect(await killed).toMatchObject({ reason: 'Timeout' });
});

it('the timer of a run ends it on time without a sweep', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { timeout: 400 });
  const { job } = await GatedJob.arrival();
  const finished = bildad.next('run.finished');
  // The sweep reads timeout_at and finds nothing to do for an hour.
  await bildad.sql(
    `UPDATE bildad.job_runs SET timeout_at = now() + interval '1 hour' WHERE id = $1`,
    [run.id],
  );
  expect(await finished).toMatchObject({
    jobRunId: run.id,
    outcome: 'timedOut',
    entry: 'reopened',
  });
  expect(job.signal.reason).toBeInstanceOf(JobTimeoutError);
  const [ended] = await bildad.jobs.listJobRunsForIdentifier(run.jobRunIdentifier);
  expect(ended).toMatchObject({ result: 'FAILED', reason: 'Timeout' });
  expect(ended!.endedAt!.getTime() - ended!.startedAt.getTime()).toBeGreaterThanOrEqual(390);
});

it("the sweep ends a run whose timeout has passed by the database's clock", async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { timeout: '1h' });
  await GatedJob.arrival();
  const finished = bildad.next('run.finished');
  await bildad.sql(`UPDATE bildad.job_runs SET timeout_at = now() - interval '1 s' WHERE id = $1`, [
    run.id,
  ]);
  expect(await finished).toMatchObject({
    jobRunId: run.id,
    outcome: 'timedOut',
  });
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { reason: 'Timeout' },
  ]);
});

it('the sweep also ends a run of this node that was never launched', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  (await GatedJob.arrival()).door.open(null);
  const done = await engine.waitForJob(run.jobRunIdentifier);
  const entry = await engine.enqueueJob(GatedJob, {}, { maxRetries: 0 });
  const finished = bildad.next('run.finished');
  // As if the node had claimed the entry and failed before it created a process.
  await bildad.sql(
    `WITH run AS (
       INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
         node_id, job_context, available_at, timeout_at, expires_at)
       SELECT job_template_id, id, job_run_identifier, 0, 'lost', $2, job_context, run_at, now(),
         now() + interval '1 hour' FROM bildad.job_queue_entries WHERE id = $1 RETURNING *
     ) UPDATE bildad.job_queue_entries e SET status = 'RUNNING', retry = 1, current_job_run_id = run.id
       FROM run WHERE e.id = run.job_queue_entry_id`,
    [entry.id, done.nodeId],
  );
  expect(await finished).toMatchObject({
    jobRunIdentifier: entry.jobRunIdentifier,
    outcome: 'timedOut',
    entry: 'removed',
  });
});

it('a kill on another node reaches the owning node', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { job } = await GatedJob.arrival();
  const finished = bildad.next('run.finished');
  expect(await other.engine.killJob(run)).toBeNull();
  expect(await finished).toMatchObject({
    jobRunId: run.id,
    outcome: 'killed',
    entry: 'reopened',
  });
  expect(job.signal.reason).toBeInstanceOf(JobKilledError);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { reason: 'Killed', killRequested: 'killed' },
  ]);
});

it('a handler that ignores its signal: the run ends after the grace period, its slot stays taken until the handler ends', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true }, { maxRetries: 0 });
  const { door } = await GatedJob.arrival();
  const abandoned = bildad.next('process.abandoned');
  expect(await engine.killJob(run)).toMatchObject({ reason: 'Killed' });
  expect(await abandoned).toMatchObject({ jobRunId: run.id });
  expect(await entryOf(run)).toBeNull();

  const next = await engine.enqueueJob(GatedJob, {});
  expect((await engine.runJobEngine()).start).toEqual([]);
  expect(engine.findJobProcess(run)).not.toBeNull();

  const ended = bildad.next('process.ended');
  door.open('too late');
  expect(await ended).toMatchObject({ jobRunId: run.id });
  await expect.poll(() => engine.findJobProcess(run)).toBeNull();
  expect((await engine.runJobEngine()).start).toHaveLength(1);
  (await GatedJob.arrival()).door.open(null);
  await engine.waitForJob(next.jobRunIdentifier);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { result: 'FAILED', reason: 'Killed', output: null },
  ]);
});

it('a result returned within the grace period is ignored', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true }, { maxRetries: 0 });
  const { job, door } = await GatedJob.arrival();
  job.signal.addEventListener('abort', () => door.open('done after all'));
  expect(await engine.killJob(run)).toMatchObject({
    result: 'FAILED',
    reason: 'Killed',
    output: null,
  });
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toHaveLength(1);
});

it('killJob rejects a run that is DONE and changes nothing', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  (await GatedJob.arrival()).door.open('done');
  await engine.waitForJob(run.jobRunIdentifier);
  for (const node of [engine, other.engine])
    await expect(node.killJob(run)).rejects.toBeInstanceOf(RunNotActiveError);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { result: 'SUCCEEDED', killRequested: null },
  ]);
});

it('killJob rejects a run that is DONE while its handler still runs', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true }, { maxRetries: 0 });
  const { door } = await GatedJob.arrival();
  await engine.killJob(run);
  await expect(engine.killJob(run)).rejects.toBeInstanceOf(RunNotActiveError);
  const ended = bildad.next('process.ended');
  door.open(null);
  await ended;
});

it('a listener of run.started can kill the run', async () => {
  const { engine } = bildad;
  let killed: Promise<unknown> | undefined;
  const off = bildad.events.on('run.started', ({ jobRunId }) => {
    killed = engine.killJob({ id: jobRunId });
  });
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  off();
  expect(await killed).toMatchObject({ id: run.id, reason: 'Killed' });
  await GatedJob.arrival();
});

it('a cancel during the grace period overrides a kill', async () => {
  const { engine, jobs } = nodeWithGracePeriod;
  const entry = await engine.enqueueJob(GatedJob, { ignoresAbort: true });
  const run = await engine.runJob(entry);
  const { door } = await GatedJob.arrival();
  expect(await Promise.all([engine.killJob(run), engine.cancelJob(entry)])).toMatchObject([
    { reason: 'Cancelled' },
    { reason: 'Cancelled' },
  ]);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
  const ended = nodeWithGracePeriod.next('process.ended');
  door.open(null);
  await ended;
});

it('a cancel overrides an earlier kill from another node', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  const run = await engine.runJob(entry);
  await GatedJob.arrival();
  const finished = bildad.next('run.finished');
  await other.engine.cancelJob(entry);
  // The call is rejected if a sweep ended the run first.
  await other.engine
    .killJob(run)
    .catch((error: unknown) => expect(error).toBeInstanceOf(RunNotActiveError));
  expect(await finished).toMatchObject({
    outcome: 'cancelled',
    entry: 'removed',
  });
});
