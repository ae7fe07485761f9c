import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { bootApp, type TestApp, type TestAppOptions } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// Nodes here tick once an hour: what starts before that was woken.

let bildad: TestApp;
let others: TestApp[];
const node = async (options: TestAppOptions['options'] = {}) => {
  const other = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { tickInterval: '1h', ...options },
    database: bildad.database,
  });
  others.push(other);
  return other;
};
const listeners = () =>
  bildad.database.sql<{ pid: number }>(
    `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'`,
  );
const listening = (n: number) => expect.poll(async () => (await listeners()).length).toBe(n);

const tellings = (calls: unknown[][]) =>
  calls.filter(([sql]) => String(sql).includes('pg_notify')).length;

beforeEach(async () => {
  others = [];
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { role: 'producer' },
  });
});
afterEach(async () => {
  for (const other of others) await other.close();
  await bildad.close();
});

it('a job starts in the process that enqueued it, without the help of a tick or of NOTIFY', async () => {
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

it('a job starts in another process', async () => {
  await node();
  await listening(1);
  const entry = await bildad.engine.enqueueJob(SimpleJob, { say: 'there' });
  expect(await bildad.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    output: 'there',
  });
});

it('a job that is enqueued while all slots are taken starts when one is free', async () => {
  const { engine } = await node({ concurrency: 1 });
  await engine.enqueueJob(GatedJob, { name: 'first' });
  const first = await GatedJob.arrival();
  await engine.enqueueJob(GatedJob, { name: 'second' });
  first.door.open(null);
  const second = await GatedJob.arrival();
  expect(second.context).toEqual({ name: 'second' });
  second.door.open(null);
});

it('a transaction wakes when it commits, and not when a savepoint of it does', async () => {
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

it('a transaction that is rolled back wakes nobody', async () => {
  const { dataSource } = bildad;
  const query = vi.spyOn(dataSource, 'query');
  await dataSource
    .transaction(async (manager) => {
      await bildad.engine.enqueueJob(SimpleJob, {}, { manager });
      throw new Error('no');
    })
    .catch(() => undefined);
  expect(tellings(query.mock.calls)).toBe(0);
  await bildad.engine.enqueueJob(SimpleJob, {}, { delay: '1h' });
  expect(tellings(query.mock.calls)).toBe(0);
});

it('a failed job with retries left is tried again by this node at once', async () => {
  const { engine } = await node({ notify: false });
  const entry = await engine.enqueueJob(SimpleJob, { fail: 'always' });
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    retry: 3,
    reason: 'always',
  });
});

it('calls in flight together wake others once or twice, not each', async () => {
  await bildad.engine.enqueueJob(SimpleJob, {});
  const query = vi.spyOn(bildad.dataSource, 'query');
  await Promise.all(Array.from({ length: 200 }, () => bildad.engine.enqueueJob(SimpleJob, {})));
  await expect.poll(() => tellings(query.mock.calls)).toBeGreaterThan(0);
  await bildad.app.close();
  expect(tellings(query.mock.calls)).toBeLessThanOrEqual(3);
});

it('a listening connection that is lost is made again, and what was missed is found', async () => {
  const worker = await node();
  await listening(1);
  const [lost] = await listeners();
  const told = worker.next('engine.error', ({ doing }) => doing.startsWith('listening'));
  await bildad.database.sql('SELECT pg_terminate_backend($1)', [lost!.pid]);
  await told;
  const entry = await bildad.engine.enqueueJob(SimpleJob, {});
  expect(await worker.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
  await listening(1);
  expect((await listeners())[0]!.pid).not.toBe(lost!.pid);
});

it('a node that closes listens no more', async () => {
  const worker = await node();
  await listening(1);
  await worker.app.close();
  expect(await listeners()).toEqual([]);
});
