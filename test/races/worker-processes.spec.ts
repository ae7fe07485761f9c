import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { startWorker } from '../support/worker.js';

// Several worker processes on one database.

let producer: TestApp;
beforeAll(async () => {
  producer = await bootApp({ options: { role: 'producer' } });
  await producer.sql('CREATE TABLE ledger (id bigserial, identifier text, run_id bigint, pid int)');
});
afterAll(() => producer.close());

const queueIsEmpty = () =>
  expect
    .poll(() => producer.jobs.getNumberOfJobsInTheQueue(), {
      timeout: 60_000,
      interval: 100,
    })
    .toBe(0);

it(
  'three processes run 5,000 jobs, each exactly once, with one guard holder at a time',
  { timeout: 90_000 },
  async () => {
    // Records every change of the guard in commit order.
    await producer.sql(`
    CREATE TABLE guard_audit (id bigserial, holder text, term bigint, was_free boolean, taken boolean);
    CREATE FUNCTION audit_guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO guard_audit (holder, term, was_free, taken) VALUES (NEW.guard_holder, NEW.guard_term,
        OLD.guard_expires_at IS NULL OR OLD.guard_expires_at <= clock_timestamp(), NEW.guard_term <> OLD.guard_term);
      RETURN NEW; END $$;
    CREATE TRIGGER audit_guard AFTER UPDATE ON bildad.job_configs FOR EACH ROW EXECUTE FUNCTION audit_guard()`);

    const workers = await Promise.all([1, 2, 3].map(() => startWorker(producer.database.url)));
    const entries = await producer.engine.enqueueJobs(
      'LEDGER',
      Array.from({ length: 5_000 }, (_none, n) => ({ n })),
    );
    await queueIsEmpty();
    expect(await Promise.all(workers.map((worker) => worker.terminate()))).toEqual([
      'SIGTERM',
      'SIGTERM',
      'SIGTERM',
    ]);

    const [ran] = await producer.sql(
      'SELECT count(*)::int AS runs, count(DISTINCT identifier)::int AS jobs, count(DISTINCT pid)::int AS pids FROM ledger',
    );
    expect(ran).toEqual({ runs: 5_000, jobs: entries.length, pids: 3 });
    expect(
      await producer.sql('SELECT result, retry, count(*)::int FROM bildad.job_runs GROUP BY 1, 2'),
    ).toEqual([{ result: 'SUCCEEDED', retry: 0, count: 5_000 }]);

    const [guard] = await producer.sql(
      `SELECT count(*) FILTER (WHERE taken)::int AS passes, count(DISTINCT term) FILTER (WHERE taken)::int AS terms,
       count(*) FILTER (WHERE taken AND NOT was_free)::int AS stolen, count(DISTINCT holder)::int AS holders FROM guard_audit`,
    );
    expect(guard).toMatchObject({ stolen: 0, holders: 3 });
    expect(guard.passes).toBeGreaterThan(3);
    expect(guard.terms).toBe(guard.passes);
  },
);

it(
  'the jobs of a killed process run on another node after their leases expire',
  { timeout: 60_000 },
  async () => {
    await producer.sql('TRUNCATE ledger');
    await producer.jobs.updateJobConfig({ leaseMs: 1_000 });
    const victim = await startWorker(producer.database.url);
    const entries = await producer.engine.enqueueJobs(
      'LEDGER',
      Array.from({ length: 5 }, () => ({ hang: true })),
    );
    await expect
      .poll(() => producer.sql('SELECT 1 FROM ledger'), { timeout: 10_000 })
      .toHaveLength(5);
    await victim.kill();

    const rescuer = await startWorker(producer.database.url, {
      RESCUER: 'yes',
    });
    await queueIsEmpty();
    await rescuer.terminate();
    for (const { jobRunIdentifier } of entries)
      expect(await producer.jobs.listJobRunsForIdentifier(jobRunIdentifier)).toMatchObject([
        { retry: 0, result: 'FAILED', reason: 'Expired' },
        { retry: 1, result: 'SUCCEEDED' },
      ]);
  },
);

it(
  'a terminated process releases unfinished jobs without a used retry',
  { timeout: 60_000 },
  async () => {
    await producer.sql('TRUNCATE ledger');
    const leaving = await startWorker(producer.database.url);
    const entry = await producer.engine.enqueueJob('LEDGER', { hang: true }, { maxRetries: 0 });
    await expect
      .poll(() => producer.sql('SELECT 1 FROM ledger'), { timeout: 10_000 })
      .toHaveLength(1);
    await leaving.terminate();
    expect(await producer.jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject(
      {
        status: 'AVAILABLE',
        retry: 1,
        uncountedRuns: 1,
      },
    );

    const next = await startWorker(producer.database.url, { RESCUER: 'yes' });
    await queueIsEmpty();
    await next.terminate();
    expect(await producer.jobs.listJobRunsForIdentifier(entry.jobRunIdentifier)).toMatchObject([
      { retry: 0, result: 'FAILED', reason: 'Interrupted' },
      { retry: 1, result: 'SUCCEEDED' },
    ]);
  },
);
