import { afterAll, beforeAll, beforeEach, expect, it, vi } from 'vitest';
import { claimNext } from '../../src/lifecycle/claim/claim.sql.js';
import { finishRuns, type RunEnd } from '../../src/lifecycle/finish/finish-runs.sql.js';
import { writeLateRows } from '../../src/lifecycle/run/late-run-rows.sql.js';
import { tablesOf } from '../../src/database/tables.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';
import { lockRows, waitingForLock } from '../support/lock.js';

// A node with high throughput inserts run rows when the runs end. Every call that reads or changes such a run
// treats it like any other run.

const tables = tablesOf('bildad');
let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
});
afterAll(() => bildad.close());
beforeEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs'));

/** Entries that a node of another process has claimed with late run rows. */
async function claimedElsewhere(n: number) {
  await bildad.engine.enqueueJobs(
    SimpleJob,
    Array.from({ length: n }, (_none, say) => ({ say })),
  );
  const { claims } = await claimNext(
    bildad.dataSource,
    tables,
    { nodeId: 'elsewhere', leaseMs: 60_000 },
    ['SIMPLE'],
    n,
    { lateRows: true },
  );
  return claims.map(({ claimed }) => claimed);
}
const completed = (
  { jobRunId, jobQueueEntryId }: Pick<RunEnd, 'jobRunId' | 'jobQueueEntryId'>,
  end: Partial<RunEnd> = {},
): RunEnd => ({
  jobRunId,
  jobQueueEntryId,
  outcome: 'completed',
  result: 'SUCCEEDED',
  reason: null,
  error: null,
  output: null,
  entry: 'remove',
  delayMs: 0,
  counts: true,
  onlyIfExpired: false,
  hasLateRow: true,
  ...end,
});
const entryOf = ({ jobRunIdentifier }: { jobRunIdentifier: string }) =>
  bildad.jobs.getJobQueueEntryForIdentifier(jobRunIdentifier);
const runsOf = ({ jobRunIdentifier }: { jobRunIdentifier: string }) =>
  bildad.jobs.listJobRunsForIdentifier(jobRunIdentifier);

it('a fast node writes a complete history when runs end', async () => {
  const fast = await bootApp({
    providers: [SimpleJob],
    options: { tickInterval: 50 },
    database: bildad.database,
  });
  const query = vi.spyOn(fast.dataSource, 'query');
  try {
    await bildad.engine.enqueueJobs(
      SimpleJob,
      Array.from({ length: 8_000 }, (_none, say) =>
        // One in a hundred fails without retry.
        say % 100 ? { say } : { fail: 'no retry' },
      ),
      { maxRetries: 0 },
    );
    await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue(), { timeout: 20_000 }).toBe(0);
  } finally {
    await fast.close();
  }
  expect(
    query.mock.calls.some(
      ([sql, values]) => sql.includes('finish_job_runs') && (values as unknown[])[11] === true,
    ),
  ).toBe(true);
  expect(
    await bildad.sql(
      `SELECT status, result, reason, retry, count(*)::int AS runs, count(DISTINCT job_run_identifier)::int AS jobs,
         bool_and(started_at <= ended_at AND available_at <= started_at AND expires_at > started_at AND timeout_at > started_at
                  AND inserted_at = started_at AND job_process_name = job_run_identifier || '#0' AND node_id LIKE '%/%'
                  AND (output IS NOT DISTINCT FROM job_context -> 'say')) AS complete
       FROM bildad.job_runs GROUP BY 1, 2, 3, 4 ORDER BY result`,
    ),
  ).toEqual([
    {
      status: 'DONE',
      result: 'FAILED',
      reason: 'no retry',
      retry: 0,
      runs: 80,
      jobs: 80,
      complete: true,
    },
    {
      status: 'DONE',
      result: 'SUCCEEDED',
      reason: null,
      retry: 0,
      runs: 7_920,
      jobs: 7_920,
      complete: true,
    },
  ]);
});

it('the end of a run inserts its row, and only the first end takes effect', async () => {
  const [one, other] = await claimedElsewhere(2);
  expect(await runsOf(one!)).toEqual([]);
  expect(await entryOf(one!)).toMatchObject({
    status: 'RUNNING',
    currentJobRunId: one!.jobRunId,
  });
  const end = (ends: RunEnd[]) => finishRuns(bildad.dataSource, tables, ends);
  expect(await end([completed(one!, { output: '"text"' })])).toEqual(['removed']);
  expect(await end([completed(one!), completed(other!)])).toEqual([null, 'removed']);
  expect(await runsOf(one!)).toMatchObject([
    {
      id: one!.jobRunId,
      status: 'DONE',
      result: 'SUCCEEDED',
      output: 'text',
      nodeId: 'elsewhere',
    },
  ]);
  expect(await entryOf(one!)).toBeNull();
});

it('a run whose row was inserted earlier ends like any other', async () => {
  const [run] = await claimedElsewhere(1);
  await writeLateRows(bildad.dataSource, tables, [run!.jobQueueEntryId]);
  const [row] = await runsOf(run!);
  expect(row).toMatchObject({
    id: run!.jobRunId,
    status: 'RUNNING',
    nodeId: 'elsewhere',
  });
  expect(row!.timeoutAt.getTime()).toBe(Math.floor(row!.startedAt.getTime() + run!.timeoutMs));
  expect(
    await finishRuns(bildad.dataSource, tables, [completed(run!, { output: '"ended"' })]),
  ).toEqual(['removed']);
  expect(await runsOf(run!)).toMatchObject([{ output: 'ended', outcome: 'completed' }]);
  expect(await entryOf(run!)).toBeNull();
});

it('the runs of a lost node expire and are retried', async () => {
  const runs = await claimedElsewhere(3);
  await bildad.jobs.updateJobConfig({ leaseMs: 1_000 });
  const rescuer = await bootApp({
    providers: [SimpleJob],
    database: bildad.database,
  });
  try {
    await bildad.sql(
      `UPDATE bildad.job_queue_entries SET claim_expires_at = now() - interval '1 s'`,
    );
    // The check of all entries is due once per lease.
    await expect.poll(async () => (await rescuer.engine.runJobEngine()).expire.length).toBe(3);
    for (const run of runs)
      expect(await bildad.engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
        retry: 1,
        result: 'SUCCEEDED',
      });
    expect(await runsOf(runs[0]!)).toMatchObject([
      { id: runs[0]!.jobRunId, reason: 'Expired', nodeId: 'elsewhere' },
      { result: 'SUCCEEDED' },
    ]);
  } finally {
    await bildad.jobs.updateJobConfig({ leaseMs: 15_000 });
    await rescuer.close();
  }
});

it('stop, cancel and remove work on a run without a row', async () => {
  const { engine } = bildad;
  const [stopped, cancelled, removed] = await claimedElsewhere(3);
  expect(await engine.stopJobInQueue((await entryOf(stopped!))!)).toMatchObject({
    id: stopped!.jobRunId,
    reason: 'Stopped',
  });
  expect(await entryOf(stopped!)).toMatchObject({
    status: 'AVAILABLE',
    retry: 1,
  });

  // Its node receives the request.
  expect(await engine.cancelJob((await entryOf(cancelled!))!)).toBeNull();
  expect(await runsOf(cancelled!)).toMatchObject([
    { status: 'RUNNING', killRequested: 'cancelled' },
  ]);

  await engine.removeJobFromQueue((await entryOf(removed!))!);
  expect(await entryOf(removed!)).toBeNull();
  expect(await runsOf(removed!)).toMatchObject([{ id: removed!.jobRunId, status: 'RUNNING' }]);
});

it('kill, fail and complete work by run id from any node', async () => {
  const { engine } = bildad;
  const [killed, failed, completed] = await claimedElsewhere(3);
  const numberOf = ({ jobRunId }: { jobRunId: string }) => ({ id: jobRunId });
  expect(await engine.killJob(numberOf(killed!))).toBeNull();
  expect(await runsOf(killed!)).toMatchObject([{ killRequested: 'killed' }]);
  expect(await engine.failJob(numberOf(failed!), new Error('by hand'))).toMatchObject({
    id: failed!.jobRunId,
    reason: 'by hand',
  });
  expect(await engine.completeJob(numberOf(completed!), 1)).toMatchObject({
    id: completed!.jobRunId,
    output: 1,
  });
});

it('a job identifier stays taken while its entry is deleted and its run row inserted', async () => {
  const { engine, dataSource } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'mine' });
  const { claims } = await claimNext(
    dataSource,
    tables,
    { nodeId: 'elsewhere', leaseMs: 60_000 },
    ['SIMPLE'],
    1,
    { lateRows: true },
  );
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await finishRuns(runner, tables, [completed(claims[0]!.claimed)]);
  const duplicates = Promise.allSettled([
    engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'other' }),
    engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'mine' }),
  ]);
  await waitingForLock(bildad, 'enqueue_jobs');
  await runner.commitTransaction();
  await runner.release();
  expect(await duplicates).toMatchObject([
    { status: 'fulfilled', value: { jobRunIdentifier: 'other' } },
    { status: 'rejected', reason: { code: 'DUPLICATE_JOB' } },
  ]);
  expect(await runsOf(entry)).toHaveLength(1);
  expect(await entryOf(entry)).toBeNull();
});

it('a claim whose answer was lost is released and does not use a retry', async () => {
  await bildad.jobs.updateJobConfig({ leaseMs: 3_000 });
  const fast = await bootApp({
    providers: [SimpleJob],
    options: { tickInterval: 50 },
    database: bildad.database,
  });
  const query = fast.dataSource.query.bind(fast.dataSource);
  let lost = 0;
  vi.spyOn(fast.dataSource, 'query').mockImplementation(async (sql: string, values?: any) => {
    const answer: unknown[] = await query(sql, values);
    if (lost || !sql.includes('claim_job') || (values as unknown[])?.at(-1) !== true) return answer;
    lost = answer.length;
    throw new Error('the connection is gone');
  });
  try {
    const JOBS = 8_000;
    await bildad.engine.enqueueJobs(
      SimpleJob,
      Array.from({ length: JOBS }, () => ({})),
      { maxRetries: 0 },
    );
    await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue(), { timeout: 15_000 }).toBe(0);
    expect(lost).toBeGreaterThan(0);
    expect(
      await bildad.sql('SELECT result, retry, count(*)::int FROM bildad.job_runs GROUP BY 1, 2'),
    ).toEqual([{ result: 'SUCCEEDED', retry: 0, count: JOBS }]);
  } finally {
    await fast.close();
    await bildad.jobs.updateJobConfig({ leaseMs: 15_000 });
  }
});

it('a late row gets the next run number when its own is taken', async () => {
  const [run] = await claimedElsewhere(1);
  await bildad.sql(
    `INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id, status,
       result, job_context, available_at, timeout_at, expires_at, ended_at)
     VALUES (1, 0, $1, 0, '', 'nowhere', 'DONE', 'FAILED', '{}', now(), now(), now(), now())`,
    [run!.jobRunIdentifier],
  );
  await expect(finishRuns(bildad.dataSource, tables, [completed(run!)])).rejects.toMatchObject({
    driverError: { code: '23505' },
  });
  expect(await entryOf(run!)).toMatchObject({ status: 'RUNNING' });
  await writeLateRows(bildad.dataSource, tables, [run!.jobQueueEntryId]);
  expect(await runsOf(run!)).toMatchObject([
    { retry: 0, nodeId: 'nowhere' },
    { retry: 1, id: run!.jobRunId, status: 'RUNNING' },
  ]);
});

it('the ends of runs lock entries in the order of their ids', async () => {
  // The first id has one digit fewer than the second.
  await bildad.sql(
    `SELECT setval(pg_get_serial_sequence('bildad.job_queue_entries', 'id'), 999999998)`,
  );
  const [low, high] = await claimedElsewhere(2);
  expect([low!.jobQueueEntryId, high!.jobQueueEntryId]).toEqual(['999999999', '1000000000']);
  const lock = 'SELECT FROM bildad.job_queue_entries WHERE id = $1';
  const release = await lockRows(bildad, lock, [low!.jobQueueEntryId]);
  const ended = finishRuns(bildad.dataSource, tables, [
    completed(high!, { output: '"high"' }),
    completed(low!, { output: '"low"' }),
    completed({ ...low!, jobRunId: '1' }),
  ]);
  try {
    await waitingForLock(bildad, 'finish_job_runs');
    expect(await bildad.sql(`${lock} FOR UPDATE NOWAIT`, [high!.jobQueueEntryId])).toHaveLength(1);
  } finally {
    await release();
  }
  expect(await ended).toEqual(['removed', 'removed', null]);
  expect(await runsOf(low!)).toMatchObject([{ output: 'low' }]);
  expect(await runsOf(high!)).toMatchObject([{ output: 'high' }]);
});
