import { once } from 'node:events';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { waitingForLock } from '../support/lock.js';
import { startWorker } from '../support/worker.js';

// Processes are killed with SIGKILL in each phase of a job's life. Acknowledged jobs exist, other enqueues are
// atomic, and each job ends SUCCEEDED once.

/** A node that dies during a pass leaves the guard's lease of 15 s behind. */
const LONG = { timeout: 60_000 };

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ options: { role: 'producer' } });
  const { database, jobs, sql } = bildad;
  await sql('CREATE TABLE ledger (identifier text, run_id bigint, pid int)');
  await jobs.updateJobConfig({ leaseMs: 1_000 });
  // Declares the template.
  await (await startWorker(database.url)).terminate();
});
afterAll(() => bildad.close());
beforeEach(() =>
  bildad.sql('DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs; TRUNCATE ledger'),
);

const enqueue = (n: number) =>
  bildad.engine.enqueueJobs(
    'LEDGER',
    Array.from({ length: n }, (_none, each) => ({ n: each })),
  );

/** Another node takes over. Then each job has succeeded once, after this number of executions. */
async function everyJobSucceeds(jobs: number, executions: number) {
  const { database, jobs: queue, sql } = bildad;
  const rescuer = await startWorker(database.url, { RESCUER: 'yes' });
  await expect.poll(() => queue.getNumberOfJobsInTheQueue(), { timeout: 30_000 }).toBe(0);
  await rescuer.terminate();
  const [ended] = await sql(
    `SELECT count(*) FILTER (WHERE result = 'SUCCEEDED')::int AS succeeded,
            count(DISTINCT job_run_identifier)::int AS jobs,
            count(*) FILTER (WHERE status = 'RUNNING')::int AS running FROM bildad.job_runs`,
  );
  expect(ended).toEqual({ succeeded: jobs, jobs, running: 0 });
  expect(await sql('SELECT count(*)::int AS n FROM ledger')).toEqual([{ n: executions }]);
}

it('a process that is killed while it enqueues loses no acknowledged job', async () => {
  const enqueuer = await startWorker(bildad.database.url, {}, 'enqueuer');
  const acknowledged: string[] = [];
  const enough = new Promise<void>((resolve) => {
    enqueuer.process.on('message', (identifier: string) => {
      if (acknowledged.push(identifier) === 300) resolve();
    });
  });
  enqueuer.process.send('one');
  await enough;
  // The last acknowledgement has arrived by then.
  const disconnected = once(enqueuer.process, 'disconnect');
  await enqueuer.kill();
  await disconnected;
  const queued = new Set(
    (
      await bildad.sql<{ name: string }>(
        'SELECT job_run_identifier AS name FROM bildad.job_queue_entries',
      )
    ).map(({ name }) => name),
  );
  expect(acknowledged.filter((name) => !queued.has(name))).toEqual([]);
  // Calls in flight may have enqueued their jobs as well.
  expect(queued.size - acknowledged.length).toBeLessThanOrEqual(32);
});

it('a process that is killed during enqueueJobs inserts no job', async () => {
  const { database, dataSource, sql } = bildad;
  const blocker = dataSource.createQueryRunner();
  await blocker.startTransaction();
  await blocker.query('LOCK TABLE bildad.job_queue_entries IN SHARE ROW EXCLUSIVE MODE');
  const enqueuer = await startWorker(database.url, {}, 'enqueuer');
  enqueuer.process.send(10_000);
  await waitingForLock(bildad, 'enqueue_jobs');
  await enqueuer.kill();
  await blocker.rollbackTransaction();
  await blocker.release();
  // The server detects the disconnect when its statement ends.
  await expect
    .poll(() =>
      sql(
        `SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%enqueue_jobs%' AND pid <> pg_backend_pid()`,
      ),
    )
    .toEqual([]);
  expect(await sql('SELECT count(*)::int AS n FROM bildad.job_queue_entries')).toEqual([{ n: 0 }]);
});

it('the claim of a killed process expires, and its jobs run', LONG, async () => {
  const { database, dataSource } = bildad;
  const [first] = await enqueue(20);
  // An uncommitted run with the same identifier blocks the claim.
  const blocker = dataSource.createQueryRunner();
  await blocker.startTransaction();
  await blocker.query(
    `INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
       node_id, job_context, available_at, timeout_at, expires_at)
     VALUES (0, 0, $1, 0, '', '', '{}', now(), now(), now())`,
    [first!.jobRunIdentifier],
  );
  const victim = await startWorker(database.url);
  await waitingForLock(bildad, 'claim_jobs');
  await victim.kill();
  await blocker.rollbackTransaction();
  await blocker.release();
  await everyJobSucceeds(20, 20);
});

it('the handlers of a killed process run again', LONG, async () => {
  const { database, engine, sql } = bildad;
  await engine.enqueueJobs(
    'LEDGER',
    Array.from({ length: 10 }, () => ({ hang: true })),
  );
  await enqueue(20);
  const victim = await startWorker(database.url);
  await expect.poll(() => sql('SELECT FROM ledger')).toHaveLength(10);
  await victim.kill();
  await everyJobSucceeds(30, 40);
});

it('a process that is killed while it finishes a run loses no committed end', LONG, async () => {
  const { database } = bildad;
  await enqueue(1);
  const unblock = await blockEnds();
  const victim = await startWorker(database.url);
  await waitingForLock(bildad, 'finish_job_runs');
  await victim.kill();
  await unblock();
  await everyJobSucceeds(1, 1);
});

it(
  'each job of a process that is killed while it finishes thousands succeeds once',
  LONG,
  async () => {
    const { database, engine, jobs, sql } = bildad;
    const JOBS = 30_000;
    await engine.enqueueJobs(
      'FAST',
      Array.from({ length: JOBS }, (_none, n) => ({ n })),
    );
    const victim = await startWorker(database.url);
    await expect
      .poll(() => jobs.getNumberOfJobsInTheQueue(), { interval: 10 })
      .toBeLessThan(JOBS - 5_000);
    await victim.kill();
    const left = await jobs.getNumberOfJobsInTheQueue();
    expect(left).toBeGreaterThan(0);
    await everyJobSucceeds(JOBS, 0);
    // Lost with the process: a prefetched claim, a running one, and ends that were not written yet.
    const [retried] = await sql(
      `SELECT count(*)::int AS n FROM bildad.job_runs WHERE reason = 'Expired'`,
    );
    expect(retried.n).toBeLessThanOrEqual(4_000);
  },
);

/** Lets claims pass and blocks every end of a run. */
async function blockEnds(): Promise<() => Promise<void>> {
  const { dataSource } = bildad;
  await dataSource.query(`
    CREATE OR REPLACE FUNCTION hold_end() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN PERFORM pg_advisory_xact_lock_shared(4711); RETURN NULL; END $$;
    CREATE OR REPLACE TRIGGER hold_end BEFORE DELETE ON bildad.job_queue_entries
      FOR EACH STATEMENT EXECUTE FUNCTION hold_end()`);
  const runner = dataSource.createQueryRunner();
  await runner.startTransaction();
  await runner.query('SELECT pg_advisory_xact_lock(4711)');
  return async () => {
    await runner.commitTransaction();
    await runner.release();
    await dataSource.query('DROP TRIGGER hold_end ON bildad.job_queue_entries');
  };
}
