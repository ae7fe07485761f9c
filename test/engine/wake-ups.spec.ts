import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { bootApp, type TestApp, type TestAppOptions } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// Nodes tick once an hour here, so a job starts only after a wake-up.

let bildad: TestApp;
let otherNodes: TestApp[];
const node = async (options: TestAppOptions['options'] = {}) => {
  const other = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { tickInterval: '1h', ...options },
    database: bildad.database,
  });
  otherNodes.push(other);
  return other;
};
const listeners = () =>
  bildad.database.sql<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`,
  );
const listening = (n: number) => expect.poll(async () => (await listeners()).length).toBe(n);

const wakeUpsSent = (calls: unknown[][]) =>
  calls.filter(([sql]) => String(sql).includes('pg_notify')).length;

beforeEach(async () => {
  otherNodes = [];
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { role: 'producer' },
  });
});
afterEach(async () => {
  for (const other of otherNodes) await other.close();
  await bildad.close();
});

it('a job starts in the process that enqueued it without a tick or NOTIFY', async () => {
  const { engine } = await node({ notify: false });
  expect(await listeners()).toEqual([]);
  const entry = await engine.enqueueJob(SimpleJob, { say: 'here' });
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    output: 'here',
  });
  const entries = await engine.enqueueJobs(SimpleJob, [{}, {}, {}]);
  for (const { jobRunIdentifier } of entries)
    expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
    });
});

it('a job that another process enqueues starts', async () => {
  await node();
  await listening(1);
  const entry = await bildad.engine.enqueueJob(SimpleJob, { say: 'there' });
  expect(await bildad.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    output: 'there',
  });
});

it('a job that is enqueued while all slots are taken starts when a slot is free', async () => {
  const { engine } = await node({ concurrency: 1 });
  await engine.enqueueJob(GatedJob, { name: 'first' });
  const first = await GatedJob.arrival();
  await engine.enqueueJob(GatedJob, { name: 'second' });
  first.door.open(null);
  const second = await GatedJob.arrival();
  expect(second.context).toEqual({ name: 'second' });
  second.door.open(null);
});

it('a transaction sends its wake-up at the commit, not at the release of a savepoint', async () => {
  const { engine, dataSource, jobs } = await node();
  const { engine: producer, dataSource: elsewhere } = bildad;
  for (const [by, source] of [
    [engine, dataSource],
    [producer, elsewhere],
  ] as const) {
    const entry = await source.transaction(async (manager) => {
      const enqueued = await manager.transaction((savepoint) =>
        by.enqueueJob(SimpleJob, {}, { manager: savepoint }),
      );
      expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
      return enqueued;
    });
    expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
    });
  }
});

it('a transaction that is rolled back sends no wake-up', async () => {
  const { dataSource } = bildad;
  const query = vi.spyOn(dataSource, 'query');
  await dataSource
    .transaction(async (manager) => {
      await bildad.engine.enqueueJob(SimpleJob, {}, { manager });
      throw new Error('no');
    })
    .catch(() => undefined);
  expect(wakeUpsSent(query.mock.calls)).toBe(0);
  await bildad.engine.enqueueJob(SimpleJob, {}, { delay: '1h' });
  expect(wakeUpsSent(query.mock.calls)).toBe(0);
});

it('a failed job is retried at once by the same node', async () => {
  const { engine } = await node({ notify: false });
  const entry = await engine.enqueueJob(SimpleJob, { fail: 'always' });
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    retry: 3,
    reason: 'always',
  });
});

it('concurrent enqueues share their wake-ups', async () => {
  await bildad.engine.enqueueJob(SimpleJob, {});
  const query = vi.spyOn(bildad.dataSource, 'query');
  await Promise.all(Array.from({ length: 200 }, () => bildad.engine.enqueueJob(SimpleJob, {})));
  await expect.poll(() => wakeUpsSent(query.mock.calls)).toBeGreaterThan(0);
  await bildad.app.close();
  expect(wakeUpsSent(query.mock.calls)).toBeLessThanOrEqual(3);
});

it('a lost listening connection is replaced, and missed jobs are found', async () => {
  const worker = await node();
  await listening(1);
  const [lost] = await listeners();
  const failed = worker.next('engine.error', ({ doing }) => doing.startsWith('listening'));
  await bildad.database.sql('SELECT pg_terminate_backend($1)', [lost!.pid]);
  await failed;
  const entry = await bildad.engine.enqueueJob(SimpleJob, {});
  expect(await worker.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
  await listening(1);
  expect((await listeners())[0]!.pid).not.toBe(lost!.pid);
});

it('a closed node does not listen', async () => {
  const worker = await node();
  await listening(1);
  await worker.app.close();
  expect(await listeners()).toEqual([]);
});
