import { once } from 'node:events';
import { JobKilledError, JobTimeoutError, RunNotActiveError } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// kill_a_job: if the run is on this node its process is stopped and the run is FAILED, "Timeout" when it took too
// long; the entry is tried again or leaves. Elsewhere nothing happens here. Ours: a kill asked for on any node reaches
// the owning one, a precise timer per run does what upstream's killer task did, and the sweep is its backstop.

let bildad: TestApp;
let other: TestApp;
/** Gives deaf handlers a second. */
let patient: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [GatedJob],
    options: { concurrency: 1 },
  });
  other = await bootApp({ database: bildad.database });
  patient = await bootApp({
    database: bildad.database,
    providers: [GatedJob],
    options: { shutdown: { killGracePeriod: '1s' } },
  });
});
afterEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries'));
afterAll(async () => {
  await other.close();
  await patient.close();
  await bildad.close();
});

const entryOf = (run: { jobRunIdentifier: string }) =>
  bildad.jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier);

it('stops the process here and ends the run as Killed; the entry is tried again', async () => {
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

it('without a retry left the entry leaves the queue', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  await GatedJob.arrival();
  await engine.killJob(run);
  expect(await entryOf(run)).toBeNull();
});

it('past its timeout it is a Timeout', async () => {
  const { engine } = patient;
  const run = await engine.enqueueAndRunJob(
    GatedJob,
    { deaf: true },
    { timeout: 20, maxRetries: 0 },
  );
  const { job, door } = await GatedJob.arrival();
  if (!job.signal.aborted) await once(job.signal, 'abort');
  // The handler is in its grace period, and ends within it.
  const killed = engine.killJob(run);
  door.open(null);
  expect(await killed).toMatchObject({ reason: 'Timeout' });
});

it('the timer of each run is precise: it needs no sweep', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { timeout: 400 });
  const { job } = await GatedJob.arrival();
  const finished = bildad.next('run.finished');
  // The sweep reads timeout_at, and finds nothing to do for an hour.
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

it('the sweep is the backstop: it sees what the database says', async () => {
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
  // As if the node had claimed the entry and failed before it made a process.
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

it('asked for on another node it reaches the owning one', async () => {
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

it('a deaf handler: the run is closed after the grace period, its slot stays taken until it ends', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { deaf: true }, { maxRetries: 0 });
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

it('what the handler still returns within the grace period does not count', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { deaf: true }, { maxRetries: 0 });
  const { job, door } = await GatedJob.arrival();
  job.signal.addEventListener('abort', () => door.open('done after all'));
  expect(await engine.killJob(run)).toMatchObject({
    result: 'FAILED',
    reason: 'Killed',
    output: null,
  });
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toHaveLength(1);
});

it('refuses a run that is DONE, and changes nothing', async () => {
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

it('refuses a run that is DONE while its deaf handler goes on', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { deaf: true }, { maxRetries: 0 });
  const { door } = await GatedJob.arrival();
  await engine.killJob(run);
  await expect(engine.killJob(run)).rejects.toBeInstanceOf(RunNotActiveError);
  const ended = bildad.next('process.ended');
  door.open(null);
  await ended;
});

it('can be asked for by whoever hears that the run has started', async () => {
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

it('a cancel outranks a kill: within the grace period', async () => {
  const { engine, jobs } = patient;
  const entry = await engine.enqueueJob(GatedJob, { deaf: true });
  const run = await engine.runJob(entry);
  const { door } = await GatedJob.arrival();
  expect(await Promise.all([engine.killJob(run), engine.cancelJob(entry)])).toMatchObject([
    { reason: 'Cancelled' },
    { reason: 'Cancelled' },
  ]);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
  const ended = patient.next('process.ended');
  door.open(null);
  await ended;
});

it('a cancel outranks a kill: asked for on another node, before it', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  const run = await engine.runJob(entry);
  await GatedJob.arrival();
  const finished = bildad.next('run.finished');
  await other.engine.cancelJob(entry);
  // Refused if a sweep was faster.
  await other.engine
    .killJob(run)
    .catch((error: unknown) => expect(error).toBeInstanceOf(RunNotActiveError));
  expect(await finished).toMatchObject({
    outcome: 'cancelled',
    entry: 'removed',
  });
});
