import { afterAll, beforeAll, expect, it } from 'vitest';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { advanceKeys, pruneKeys } from '../../src/lifecycle/enqueue/enqueue.sql.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';
import { lockRows } from '../support/lock.js';

// Key rows that no job holds any more are pruned.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
});
afterAll(() => bildad.close());

const prune = () => {
  const { db, tables } = (bildad.engine as unknown as { bildad: BildadRuntime }).bildad.store;
  return pruneKeys(db, tables, 1_000);
};

const remainingKeys = async () =>
  (await bildad.sql('SELECT key FROM bildad.job_keys ORDER BY key')).map(({ key }) => key);

it('pruning deletes the keys of ended jobs, and keeps taken keys and checks them later', async () => {
  const { engine } = bildad;
  const add = (key: string, within?: string) =>
    engine.enqueueJob(SimpleJob, {}, { unique: { key, ...(within && { within }) } });
  const over = [await add('over'), await add('within', '3h')];
  await engine.runJobEngine();
  for (const { jobRunIdentifier } of over) await engine.waitForJob(jobRunIdentifier);
  await add('queued');
  await engine.enqueueJob(SimpleJob, {}, { throttle: { key: 'throttled', every: '2h' } });
  await engine.cancelJob(await add('removed'));
  // No key is due for a check.
  expect(await prune()).toBe(0);
  await bildad.sql('UPDATE bildad.job_keys SET check_at = now()');
  expect(await prune()).toBe(5);
  expect(await remainingKeys()).toEqual(['queued', 'throttled', 'within']);
  expect(
    await bildad.sql(
      `SELECT key, round(extract(epoch FROM check_at - now()) / 3600)::int AS hours FROM bildad.job_keys ORDER BY key`,
    ),
  ).toEqual([
    { key: 'queued', hours: 1 },
    { key: 'throttled', hours: 2 },
    { key: 'within', hours: 3 },
  ]);
  expect(await prune()).toBe(0);
});

it('the engine prunes keys periodically', async () => {
  const { jobs, engine } = bildad;
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  await bildad.sql('DELETE FROM bildad.job_runs');
  await bildad.sql('UPDATE bildad.job_keys SET check_at = now()');
  await jobs.updateJobConfig({ leaseMs: 1_000 });
  await expect
    .poll(async () => {
      await engine.runJobEngine();
      return remainingKeys();
    })
    .toEqual([]);
});

it('a pass skips a waiting entry that another transaction has locked', async () => {
  const { engine } = bildad;
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  await bildad.sql('DELETE FROM bildad.job_keys');
  const keys = ['locked', 'free'];
  const keepLatest = (key: string) =>
    engine.enqueueJob(SimpleJob, {}, { unique: { key, onConflict: 'keepLatest' } });
  for (const key of keys) await keepLatest(key);
  await bildad.sql(`UPDATE bildad.job_queue_entries SET status = 'RUNNING'`);
  const [locked, free] = [await keepLatest('locked'), await keepLatest('free')];
  await bildad.sql(`DELETE FROM bildad.job_queue_entries WHERE status = 'RUNNING'`);
  const unlock = await lockRows(bildad, 'SELECT FROM bildad.job_queue_entries WHERE id = $1', [
    locked.id,
  ]);
  const advance = () => {
    const { db, tables } = (bildad.engine as unknown as { bildad: BildadRuntime }).bildad.store;
    return advanceKeys(db, tables, 1_000);
  };
  expect(await advance()).toBe(1);
  expect(await bildad.jobs.listJobsToRunInTheQueue()).toMatchObject([{ id: free.id }]);
  await unlock();
  expect(await advance()).toBe(1);
  const due = (await bildad.jobs.listJobsToRunInTheQueue()).map(({ id }) => id);
  expect(new Set(due)).toEqual(new Set([free.id, locked.id]));
});

it('pruning does not read keys that are not yet due for a check', async () => {
  await bildad.sql('DELETE FROM bildad.job_keys');
  await bildad.sql(
    `INSERT INTO bildad.job_keys (job_template_id, kind, key) SELECT 1, 'unique', n::text FROM generate_series(1, 20000) n`,
  );
  const explain = `EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM bildad.prune_job_keys (1000)`;
  // The first call also reads the catalog.
  await bildad.sql(explain);
  const [{ 'QUERY PLAN': plan }] = await bildad.sql(explain);
  const { 'Shared Hit Blocks': hit, 'Shared Read Blocks': read } = plan[0].Plan;
  expect(hit + read).toBeLessThan(50);
});

it('an entry that is scheduled for a later day is not due when its run number is taken', async () => {
  const { engine } = bildad;
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  const entry = await engine.enqueueJob(SimpleJob, {}, { delay: '1d' });
  await bildad.sql(
    `INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
       status, result, ended_at, job_context, available_at, timeout_at, expires_at)
     SELECT job_template_id, id, job_run_identifier, 0, 'by hand', 'elsewhere', 'DONE', 'FAILED', now(), '{}', now(), now(), now()
     FROM bildad.job_queue_entries WHERE id = $1`,
    [entry.id],
  );
  await expect(engine.runJob(entry)).rejects.toMatchObject({ code: 'JOB_NOT_AVAILABLE' });
  expect(await bildad.jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
    scheduled: true,
    retry: 1,
  });
  expect((await engine.runJobEngine()).start).toEqual([]);
});
