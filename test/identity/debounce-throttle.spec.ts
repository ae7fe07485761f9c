import { BildadConfigError, type EnqueueOptions } from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// Debounce enqueues one job for a burst of calls, after the last call. Throttle enqueues the first of a burst.

const HOUR = 3_600_000;

let bildad: TestApp;
let key = '';
let keys = 0;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
beforeEach(async () => {
  key = `burst ${keys++}`;
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
});
afterAll(() => bildad.close());

const add = (name: string, options: EnqueueOptions) =>
  bildad.engine.enqueueJob(GatedJob, { name }, options);

/** Moves all recorded times into the past by `ms`. */
const shiftIntoPast = (ms: number) =>
  bildad.sql(
    `WITH keys AS (UPDATE bildad.job_keys SET first_at = first_at - $1 * interval '1 ms')
     UPDATE bildad.job_queue_entries SET run_at = run_at - $1 * interval '1 ms', inserted_at = inserted_at - $1 * interval '1 ms'`,
    [ms],
  );

async function runNext() {
  await bildad.engine.runJobEngine();
  const { context, job, door } = await GatedJob.arrival();
  door.open(null);
  await bildad.engine.waitForJob(job.jobRunIdentifier);
  return context;
}

it('debounce: each call postpones the job and replaces its context', async () => {
  const debounce = { key, wait: '1h' };
  const first = await add('first', { debounce });
  expect(first).toMatchObject({ deduplicated: false, scheduled: true });
  expect(first.runAt.getTime() - first.insertedAt.getTime()).toBeCloseTo(HOUR, -2);
  await shiftIntoPast(HOUR / 2);
  const second = await add('second', { debounce, priority: 2 });
  expect(second).toMatchObject({
    id: first.id,
    jobContext: { name: 'second' },
    priority: 2,
    deduplicated: true,
  });
  expect(second.runAt.getTime() - first.runAt.getTime()).toBeGreaterThanOrEqual(0);
  expect((await bildad.engine.runJobEngine()).start).toEqual([]);
  await shiftIntoPast(HOUR + 1);
  expect(await runNext()).toEqual({ name: 'second' });
  expect(await add('third', { debounce })).toMatchObject({
    deduplicated: false,
  });
});

it('debounce: the job is due maxWait after the first call at the latest', async () => {
  const debounce = { key, wait: '1h', maxWait: '90m' };
  const first = await add('first', { debounce });
  await shiftIntoPast(HOUR * 0.75);
  const second = await add('second', { debounce });
  // The first call was 45 minutes ago, so 45 minutes are left.
  expect(second.runAt.getTime() - first.insertedAt.getTime()).toBeCloseTo(HOUR * 0.75, -4);
  await shiftIntoPast(HOUR);
  const third = await add('third', { debounce });
  expect(third).toMatchObject({ id: first.id, scheduled: false });
  expect(await runNext()).toEqual({ name: 'third' });
});

it('debounce: a call while the job runs starts a new burst', async () => {
  const debounce = { key, wait: 0 };
  await add('first', { debounce });
  await bildad.engine.runJobEngine();
  const running = await GatedJob.arrival();
  const second = await add('second', { debounce });
  expect(second.deduplicated).toBe(false);
  running.door.open(null);
  await bildad.engine.waitForJob(running.job.jobRunIdentifier);
  expect(await runNext()).toEqual({ name: 'second' });
});

it('throttle: the first call enqueues a job, later calls within `every` do not, whatever the state of the job', async () => {
  const throttle = { key, every: '1h' };
  const first = await add('first', { throttle });
  expect(first.deduplicated).toBe(false);
  const held = { id: first.id, deduplicated: true };
  expect(await add('second', { throttle })).toMatchObject(held);
  expect(await runNext()).toEqual({ name: 'first' });
  expect(await add('third', { throttle })).toMatchObject({
    ...held,
    status: 'DONE',
    jobContext: { name: 'first' },
  });
  await shiftIntoPast(HOUR + 1);
  expect(await add('fourth', { throttle })).toMatchObject({
    deduplicated: false,
  });
});

it('throttle: a call after `every` enqueues a job although the earlier one still waits', async () => {
  const throttle = { key, every: '1h' };
  const first = await add('first', { throttle });
  await shiftIntoPast(HOUR + 1);
  const second = await add('second', { throttle });
  expect(second.deduplicated).toBe(false);
  expect((await add('third', { throttle })).id).toBe(second.id);
  expect(first.id).not.toBe(second.id);
});

it('unique, debounce and throttle keys with the same text are independent', async () => {
  const unique = { key };
  const debounce = { key, wait: '1h' };
  const throttle = { key, every: '1h' };
  for (const options of [{ unique }, { debounce }, { throttle }])
    expect((await add('one', options)).deduplicated).toBe(false);
  for (const options of [{ unique }, { debounce }, { throttle }])
    expect((await add('other', options)).deduplicated).toBe(true);
});

it.each<[string, object]>([
  ['debounce.wait', { debounce: { key: 'x' } }],
  ['debounce.key', { debounce: { wait: 1 } }],
  ['debounce.maxWait', { debounce: { key: 'x', wait: '2m', maxWait: '1m' } }],
  ['debounce.max', { debounce: { key: 'x', wait: 1, max: 1 } }],
  ['delay', { debounce: { key: 'x', wait: 1 }, delay: 1 }],
  ['runAt', { debounce: { key: 'x', wait: 1 }, runAt: new Date() }],
  ['throttle.every', { throttle: { key: 'x' } }],
  ['throttle.every', { throttle: { key: 'x', every: 0 } }],
  ['throttle.key', { throttle: { key: null, every: 1 } }],
  ['debounce', { debounce: {}, throttle: {} }],
])('an error names the invalid field %s of %j', async (field, options) => {
  const error: unknown = await add('x', options as never).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(BildadConfigError);
  expect(error).toMatchObject({ field });
  expect(await bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);
});
