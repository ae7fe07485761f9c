import {
  BildadJob,
  JobEngineService,
  JobNotAvailableError,
  RunNotActiveError,
  type JobExecution,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// launch_job_process: starts the process of a claimed run and registers it by name. Deviation from
// upstream: it is registered before the handler starts, and a second process never starts.

/** The handler's own process, as the first line of the handler finds it. */
let found: { name?: string; jobRunId?: string } | null | undefined;

@BildadJob({ code: 'LOOKS_FOR_ITSELF' })
class FindsOwnProcessJob implements JobHandler<object> {
  constructor(private readonly engine: JobEngineService) {}

  runJob(_context: object, job: JobExecution): void {
    found = this.engine.findJobProcess({ id: job.jobRunId });
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob, FindsOwnProcessJob] });
});
afterAll(() => bildad.close());

const lease = (run: { id: string }, from: string) =>
  bildad.sql('UPDATE bildad.job_runs SET expires_at = now() + $1::interval WHERE id = $2', [
    from,
    run.id,
  ]);

/** A run that is RUNNING under the id of a node that does not exist. */
async function runOfDeadNode(timeout = '1h'): Promise<{ id: string; jobRunIdentifier: string }> {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {}, { timeout });
  const [run] = await bildad.sql<{ id: string; jobRunIdentifier: string }>(
    `WITH run AS (
       INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
         node_id, job_context, available_at, timeout_at, expires_at)
       SELECT job_template_id, id, job_run_identifier, 0, 'dead', 'dead node', job_context, run_at,
         now() + timeout_ms * interval '1 ms', now() + interval '1 hour'
       FROM bildad.job_queue_entries WHERE id = $1 RETURNING *
     ), taken AS (
       UPDATE bildad.job_queue_entries e SET status = 'RUNNING', retry = 1, current_job_run_id = run.id
       FROM run WHERE e.id = run.job_queue_entry_id
     ) SELECT id::text, job_run_identifier AS "jobRunIdentifier" FROM run`,
    [entry.id],
  );
  return run!;
}

it('the process is registered before the handler starts', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(FindsOwnProcessJob, {});
  await engine.waitForJob(run.jobRunIdentifier);
  expect(found).toMatchObject({ name: run.jobProcessName, jobRunId: run.id });
});

it('launchJobProcess returns a run that already has a process here', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { door } = await GatedJob.arrival();
  expect(await engine.launchJobProcess(run)).toMatchObject({
    id: run.id,
    status: 'RUNNING',
  });
  expect(GatedJob.arrivals).toEqual([]);
  door.open(null);
  await engine.waitForJob(run.jobRunIdentifier);
});

it('launchJobProcess rejects a run that another node runs', async () => {
  const { engine } = bildad;
  const run = await runOfDeadNode();
  await expect(engine.launchJobProcess(run)).rejects.toBeInstanceOf(JobNotAvailableError);
  expect(engine.findJobProcess(run)).toBeNull();
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
});

it('ten concurrent calls start one process for the run of a lost node', async () => {
  const { engine, jobs } = bildad;
  const run = await runOfDeadNode();
  await lease(run, '-1 second');
  const settled = await Promise.allSettled(
    Array.from({ length: 10 }, () => engine.launchJobProcess(run)),
  );
  for (const end of settled)
    if (end.status === 'rejected') expect(end.reason).toBeInstanceOf(JobNotAvailableError);
  expect(settled.some(({ status }) => status === 'fulfilled')).toBe(true);
  const { job, door } = await GatedJob.arrival();
  expect(job).toMatchObject({ jobRunId: run.id, retry: 0 });
  expect(GatedJob.arrivals).toEqual([]);
  door.open('adopted');
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    id: run.id,
    output: 'adopted',
  });
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toHaveLength(1);
});

it('an adopted run keeps its deadline', async () => {
  const { engine } = bildad;
  const run = await runOfDeadNode('1m');
  await bildad.sql(
    `UPDATE bildad.job_runs SET timeout_at = now() + interval '50 ms' WHERE id = $1`,
    [run.id],
  );
  await lease(run, '-1 second');
  const finished = bildad.next('run.finished');
  await engine.launchJobProcess(run);
  const { job } = await GatedJob.arrival();
  expect(await finished).toMatchObject({
    jobRunId: run.id,
    outcome: 'timedOut',
    entry: 'reopened',
  });
  expect(job.signal.aborted).toBe(true);
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
});

it('launchJobProcess rejects a run that is DONE, even while its handler still runs', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true }, { maxRetries: 0 });
  const { door } = await GatedJob.arrival();
  await engine.killJob(run);
  await expect(engine.launchJobProcess(run)).rejects.toBeInstanceOf(RunNotActiveError);
  const ended = bildad.next('process.ended');
  door.open(null);
  await ended;
  await expect(engine.launchJobProcess(run)).rejects.toBeInstanceOf(RunNotActiveError);
  await expect(engine.launchJobProcess({ id: '0' })).rejects.toBeInstanceOf(RunNotActiveError);
});
