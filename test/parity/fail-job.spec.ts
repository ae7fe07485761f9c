import { BildadJob, JobKilledError, RunNotActiveError, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// fail_a_job: the run is FAILED with the reason, and the entry is retried or removed. Deviations
// from upstream: the reason never overflows its column, any thrown value can be stored, and the
// whole error is stored.

let toThrow: unknown;

@BildadJob({ code: 'THROWS', maxRetries: 0 })
class ThrowsJob implements JobHandler<object> {
  runJob(): void {
    throw toThrow;
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob, ThrowsJob] });
});
afterAll(() => bildad.close());

/** Checks that a thrown error and an error passed to `failJob` are stored alike. */
async function reasonsOf(error: unknown): Promise<(string | null)[]> {
  const { engine } = bildad;
  toThrow = error;
  const threw = await engine.enqueueAndRunJob(ThrowsJob, {});
  const thrown = await engine.waitForJob(threw.jobRunIdentifier);
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  await GatedJob.arrival();
  const failed = await engine.failJob(run, error);
  expect([thrown, failed]).toMatchObject([
    { status: 'DONE', result: 'FAILED' },
    { status: 'DONE', result: 'FAILED' },
  ]);
  expect(failed.error).toEqual(thrown.error);
  return [thrown.reason, failed.reason];
}

it('failJob fails the run with the error as reason, and its entry is retried', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { job } = await GatedJob.arrival();
  expect(await engine.failJob(run, new TypeError('no such file'))).toMatchObject({
    id: run.id,
    status: 'DONE',
    result: 'FAILED',
    reason: 'no such file',
    output: null,
    error: { name: 'TypeError', message: 'no such file' },
  });
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toMatchObject({
    status: 'AVAILABLE',
    retry: 1,
  });
  expect(job.signal.reason).toBeInstanceOf(JobKilledError);
});

it('failJob removes the entry when no retry is left', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  await GatedJob.arrival();
  await engine.failJob(run, new Error('for good'));
  expect(await jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier)).toBeNull();
});

it('failJob rejects a run that is DONE and changes nothing', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  (await GatedJob.arrival()).door.open('fine');
  await engine.waitForJob(run.jobRunIdentifier);
  await expect(engine.failJob(run, new Error('no'))).rejects.toBeInstanceOf(RunNotActiveError);
  await expect(engine.failJob({ id: '0' }, 'no')).rejects.toBeInstanceOf(RunNotActiveError);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { result: 'SUCCEEDED', reason: null, error: null },
  ]);
});

it('exactly one of several concurrent calls ends the run', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  await GatedJob.arrival();
  const settled = await Promise.allSettled([
    engine.failJob(run, new Error('a')),
    engine.completeJob(run),
    engine.expireJob(run),
  ]);
  const refused = settled.filter((end) => end.status === 'rejected');
  expect(refused.map(({ reason }) => reason as unknown)).toEqual([
    expect.any(RunNotActiveError),
    expect.any(RunNotActiveError),
  ]);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toHaveLength(1);
});

it('a reason is truncated at 8000 characters, and never inside a character', async () => {
  for (const reason of await reasonsOf(new Error('x'.repeat(100_000))))
    expect(reason).toBe('x'.repeat(8000));
  for (const reason of await reasonsOf(new Error(`${'x'.repeat(7999)}😀`))) {
    expect(reason).toHaveLength(8000);
    expect(reason!.isWellFormed()).toBe(true);
  }
});

it('a message that PostgreSQL would reject is stored', async () => {
  expect(await reasonsOf(new Error('a\0b \ud800'))).toEqual(Array(2).fill('a\ufffdb \ufffd'));
});

it.each([
  ['undefined', undefined, 'undefined'],
  ['null', null, 'null'],
  ['a text', 'out of paper', 'out of paper'],
  ['an empty text', '', 'string'],
  ['a number', 42, '42'],
  ['a bigint', 1n, '1'],
  ['a symbol', Symbol('sign'), 'Symbol(sign)'],
  ['a function', () => 1, '() => 1'],
  ['an object', { message: 'own message' }, 'own message'],
  ['an object without a message', { n: 1 }, '[object Object]'],
  ['an object without a prototype', Object.create(null), 'an error that cannot be shown'],
  ['an Error without a message', new RangeError(), 'RangeError'],
])('a thrown value is stored: %s', async (_what, thrown, reason) => {
  expect(await reasonsOf(thrown)).toEqual([reason, reason]);
});

it('an object that throws on every access is stored', async () => {
  const hostile = new Proxy(
    {},
    new Proxy(
      {},
      {
        get: () => () => {
          throw new Error('do not touch');
        },
      },
    ),
  );
  expect(await reasonsOf(hostile)).toEqual(Array(2).fill('an error that cannot be shown'));
});

it('the name, message, stack, code and causes of an error are stored', async () => {
  const { engine } = bildad;
  const root = Object.assign(new Error('connection refused'), {
    code: 'ECONNREFUSED',
  });
  toThrow = new TypeError('cannot send', { cause: root });
  const run = await engine.enqueueAndRunJob(ThrowsJob, {});
  const { error } = await engine.waitForJob(run.jobRunIdentifier);
  expect(error).toMatchObject({
    name: 'TypeError',
    message: 'cannot send',
    stack: (toThrow as Error).stack,
    cause: {
      name: 'Error',
      message: 'connection refused',
      code: 'ECONNREFUSED',
    },
  });
});

it('an error that is its own cause is stored', async () => {
  const loop = new Error('round');
  loop.cause = loop;
  expect(await reasonsOf(loop)).toEqual(['round', 'round']);
});
