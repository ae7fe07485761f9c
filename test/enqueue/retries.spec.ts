import { BildadJob } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { lockRows } from '../support/lock.js';

// The statement that enqueues a retry marks its run, so retryJobs retries each run once for all callers.

const JOBS = 300;

@BildadJob({ code: 'FAILING', maxRetries: 0 })
class FailingJob {
  runJob(): void {
    throw new Error('fails');
  }
}

let bildad: TestApp;
let other: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [FailingJob], options: { concurrency: 50 } });
  other = await bootApp({ database: bildad.database, options: { role: 'producer' } });
});
afterAll(async () => {
  await other.app.close();
  await bildad.close();
});
beforeEach(async () => {
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  await bildad.sql('DELETE FROM bildad.job_runs');
});

async function failedRuns(count: number) {
  const { engine, jobs } = bildad;
  await engine.enqueueJobs(
    FailingJob,
    Array.from({ length: count }, () => ({})),
  );
  await expect
    .poll(async () => {
      await engine.runJobEngine();
      return jobs.getNumberOfJobsInTheQueue();
    })
    .toBe(0);
  return bildad.sql<{ id: string; jobTemplateId: string; jobContext: object }>(
    `SELECT id::text, job_template_id::text AS "jobTemplateId", job_context AS "jobContext" FROM bildad.job_runs ORDER BY id`,
  );
}

const retriedRuns = async () =>
  (
    await bildad.sql<{ id: string }>(
      'SELECT retry_of_job_run_id::text AS id FROM bildad.job_queue_entries WHERE retry_of_job_run_id IS NOT NULL',
    )
  ).map(({ id }) => id);

const unmarked = () => bildad.sql('SELECT FROM bildad.job_runs WHERE retried_at IS NULL');

it.each([
  ['one process', () => [bildad, bildad]],
  ['two processes', () => [bildad, other]],
])('two concurrent retryJobs calls in %s retry each run once', async (_where, apps) => {
  await failedRuns(JOBS);
  const counts = await Promise.all(
    apps().map(({ engine }) => engine.retryJobs({ job: 'FAILING' })),
  );
  const [first, second] = counts;
  expect(first!.retried + second!.retried).toBe(JOBS);
  expect([first!.refused, second!.refused]).toEqual([0, 0]);
  const retried = await retriedRuns();
  expect(retried).toHaveLength(JOBS);
  expect(new Set(retried).size).toBe(JOBS);
  expect(await unmarked()).toEqual([]);
});

it('a deduplicated retry does not mark its run', async () => {
  const [run] = await failedRuns(1);
  const unique = { key: 'held' };
  const holder = await bildad.engine.enqueueJob(FailingJob, {}, { unique });
  expect(await bildad.engine.retryJob(run!, { unique })).toMatchObject({
    id: holder.id,
    deduplicated: true,
  });
  expect(await unmarked()).toHaveLength(1);
  await bildad.engine.cancelJob(holder);
  expect(await bildad.engine.retryJob(run!, { unique })).toMatchObject({
    retryOfJobRunId: run!.id,
    deduplicated: false,
  });
  expect(await unmarked()).toEqual([]);
});

it('a retry that is rolled back does not mark its run', async () => {
  const [run] = await failedRuns(1);
  const transaction = bildad.engine.transaction(async () => {
    await bildad.engine.retryJob(run!);
    throw new Error('rolled back');
  });
  await expect(transaction).rejects.toThrow('rolled back');
  expect(await unmarked()).toHaveLength(1);
  expect(await retriedRuns()).toEqual([]);
});

it('retryJob retries a run repeatedly, also after its row is deleted', async () => {
  const [run] = await failedRuns(1);
  await bildad.engine.retryJob(run!);
  await bildad.engine.retryJob(run!);
  await bildad.sql('DELETE FROM bildad.job_runs');
  await bildad.engine.retryJob(run!);
  expect(await retriedRuns()).toEqual([run!.id, run!.id, run!.id]);
});

it('a locked run delays its own retry only', async () => {
  const runs = await failedRuns(10);
  const unlock = await lockRows(bildad, 'SELECT FROM bildad.job_runs WHERE id = $1', [runs[0]!.id]);
  const state = { isOver: false };
  const waiting = bildad.engine.retryJob(runs[0]!);
  void waiting.finally(() => (state.isOver = true));
  await Promise.all(runs.slice(1).map((run) => bildad.engine.retryJob(run)));
  expect(state.isOver).toBe(false);
  await unlock();
  await waiting;
  expect(await retriedRuns()).toHaveLength(10);
});
