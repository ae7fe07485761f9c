import { afterAll, beforeAll, expect, it } from 'vitest';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { pruneKeys } from '../../src/lifecycle/enqueue/enqueue.sql.js';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// Rows of keys that nobody holds any more are forgotten.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
});
afterAll(() => bildad.close());

const prune = () => {
  const { db, tables } = (bildad.engine as unknown as { bildad: BildadRuntime }).bildad.store;
  return pruneKeys(db, tables, 1_000);
};

const held = async () =>
  (await bildad.sql('SELECT key FROM bildad.job_keys ORDER BY key')).map(({ key }) => key);

it('keys whose jobs are over go, keys that are taken stay, and are looked at again later', async () => {
  const { engine } = bildad;
  const add = (key: string, within?: string) =>
    engine.enqueueJob(SimpleJob, {}, { unique: { key, ...(within && { within }) } });
  const over = [await add('over'), await add('within', '3h')];
  await engine.runJobEngine();
  for (const { jobRunIdentifier } of over) await engine.waitForJob(jobRunIdentifier);
  await add('queued');
  await engine.enqueueJob(SimpleJob, {}, { throttle: { key: 'throttled', every: '2h' } });
  await engine.cancelJob(await add('removed'));
  // Nothing is due to be looked at.
  expect(await prune()).toBe(0);
  await bildad.sql('UPDATE bildad.job_keys SET look_at = now()');
  expect(await prune()).toBe(5);
  expect(await held()).toEqual(['queued', 'throttled', 'within']);
  expect(
    await bildad.sql(
      `SELECT key, round(extract(epoch FROM look_at - now()) / 3600)::int AS hours FROM bildad.job_keys ORDER BY key`,
    ),
  ).toEqual([
    { key: 'queued', hours: 1 },
    { key: 'throttled', hours: 2 },
    { key: 'within', hours: 3 },
  ]);
  expect(await prune()).toBe(0);
});

it('the engine does that by itself', async () => {
  const { jobs, engine } = bildad;
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
  await bildad.sql('DELETE FROM bildad.job_runs');
  await bildad.sql('UPDATE bildad.job_keys SET look_at = now()');
  await jobs.updateJobConfig({ leaseMs: 1_000 });
  await expect
    .poll(async () => {
      await engine.runJobEngine();
      return held();
    })
    .toEqual([]);
});
