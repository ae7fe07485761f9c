import {
  BildadConfigError,
  DuplicateJobError,
  type EnqueueOptions,
  type UniqueOptions,
} from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// unique: how long a job holds its key, and what an enqueue with a taken key does.

let bildad: TestApp;
let key = '';
let keys = 0;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob, GatedJob] });
});
beforeEach(async () => {
  key = `key ${keys++}`;
  await bildad.sql('DELETE FROM bildad.job_queue_entries');
});
afterAll(() => bildad.close());

const add = (name: string, unique: Omit<UniqueOptions, 'key'> = {}, options: EnqueueOptions = {}) =>
  bildad.engine.enqueueJob(GatedJob, { name }, { ...options, unique: { key, ...unique } });
const queued = () => bildad.jobs.listAllJobsInTheQueue();
const entryOf = (identifier: string) => bildad.jobs.getJobQueueEntryForIdentifier(identifier);

/** Starts the next due job. */
async function start() {
  await bildad.engine.runJobEngine();
  return GatedJob.arrival();
}

/** Lets a job succeed. */
async function end({ job, door }: Awaited<ReturnType<typeof start>>) {
  door.open(null);
  return bildad.engine.waitForJob(job.jobRunIdentifier);
}

describe('how long a job holds its key', () => {
  it("until: 'finished' (default): a job holds its key until its last run ends", async () => {
    const first = await add('first', {}, { maxRetries: 1 });
    expect(first.deduplicated).toBe(false);
    const expectDuplicate = async () =>
      expect(await add('other')).toMatchObject({
        id: first.id,
        jobRunIdentifier: first.jobRunIdentifier,
        deduplicated: true,
      });
    await expectDuplicate();
    const run = await start();
    await expectDuplicate();
    await bildad.engine.failJob({ id: run.job.jobRunId }, new Error('no'));
    await expectDuplicate();
    await end(await start());
    expect(await add('second')).toMatchObject({
      deduplicated: false,
      jobContext: { name: 'second' },
    });
  });

  it("until: 'started': the key is free when the first run starts, and stays free if that run fails", async () => {
    const until = { until: 'started' } as const;
    const first = await add('first', until);
    expect(await add('other', until)).toMatchObject({
      id: first.id,
      deduplicated: true,
    });
    const run = await start();
    const second = await add('second', until);
    expect(second.deduplicated).toBe(false);
    await bildad.engine.failJob({ id: run.job.jobRunId }, new Error('no'));
    expect((await add('third', until)).id).toBe(second.id);
    expect(await queued()).toHaveLength(2);
  });

  it('within: the key stays taken for that time after the end, and the entry of the ended job is returned', async () => {
    const terms = { within: '1h' };
    const first = await add('first', terms);
    const run = await start();
    await end(run);
    expect(await add('other', terms)).toMatchObject({
      id: first.id,
      jobRunIdentifier: first.jobRunIdentifier,
      jobContext: { name: 'first' },
      status: 'DONE',
      currentJobRunId: run.job.jobRunId,
      deduplicated: true,
    });
    expect(await queued()).toEqual([]);
    await bildad.sql(
      `UPDATE bildad.job_runs SET ended_at = ended_at - interval '61 min', started_at = started_at - interval '62 min'
       WHERE job_run_identifier = $1`,
      [first.jobRunIdentifier],
    );
    expect((await add('second', terms)).deduplicated).toBe(false);
  });

  it("within with until: 'started': the time starts with the first run", async () => {
    const terms = { until: 'started', within: '1h' } as const;
    const first = await add('first', terms);
    const run = await start();
    expect(await add('other', terms)).toMatchObject({
      id: first.id,
      status: 'RUNNING',
      deduplicated: true,
    });
    await end(run);
    expect(await add('other', terms)).toMatchObject({ status: 'DONE' });
    await bildad.sql(
      `UPDATE bildad.job_runs SET started_at = started_at - interval '61 min' WHERE job_run_identifier = $1`,
      [first.jobRunIdentifier],
    );
    expect((await add('second', terms)).deduplicated).toBe(false);
  });

  it('a job that was cancelled before its first run, or whose runs were deleted, does not hold its key', async () => {
    const terms = { within: '1h' };
    await bildad.engine.cancelJob(await add('first', terms));
    const second = await add('second', terms);
    expect(second.deduplicated).toBe(false);
    await end(await start());
    expect((await add('other', terms)).deduplicated).toBe(true);
    await bildad.sql('DELETE FROM bildad.job_runs');
    expect((await add('third', terms)).deduplicated).toBe(false);
  });

  it('the same key of another template is a different key', async () => {
    await add('first');
    expect(await bildad.engine.enqueueJob(SimpleJob, {}, { unique: { key } })).toMatchObject({
      deduplicated: false,
    });
  });
});

describe('an enqueue whose key is taken', () => {
  it("'throw': rejects with a DuplicateJobError that names the holder of the key", async () => {
    const first = await add('first');
    const error: unknown = await add('other', { onConflict: 'throw' }).catch(
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(DuplicateJobError);
    expect(error).toMatchObject({
      jobRunIdentifier: first.jobRunIdentifier,
      uniqueKey: key,
    });
    expect(await queued()).toHaveLength(1);
  });

  it("'replace': a waiting job gets the new context, options and time", async () => {
    const first = await add('first', {}, { delay: '1h', priority: 9 });
    const replaced = await add(
      'second',
      { onConflict: 'replace' },
      {
        priority: 2,
        maxRetries: 7,
        timeout: '9m',
        backoff: { type: 'fixed', delay: 9 },
      },
    );
    expect(replaced).toMatchObject({
      id: first.id,
      jobRunIdentifier: first.jobRunIdentifier,
      jobContext: { name: 'second' },
      priority: 2,
      maxRetries: 7,
      timeoutMs: 540_000,
      backoff: { type: 'fixed', delay: 9 },
      scheduled: false,
      deduplicated: true,
    });
    replaced.deduplicated = false;
    expect(replaced).toEqual(
      Object.assign((await entryOf(first.jobRunIdentifier))!, {
        deduplicated: false,
      }),
    );
    const run = await start();
    expect(run.context.name).toBe('second');
    // A running job is not changed.
    expect(await add('third', { onConflict: 'replace' })).toMatchObject({
      jobContext: { name: 'second' },
      status: 'RUNNING',
      deduplicated: true,
    });
    await end(run);
  });

  it("'replace': a job that waits for a retry keeps its retry time", async () => {
    const first = await add('first', {}, { backoff: { type: 'fixed', delay: '1h' } });
    const run = await start();
    await bildad.engine.failJob({ id: run.job.jobRunId }, new Error('no'));
    const { runAt } = (await entryOf(first.jobRunIdentifier))!;
    expect(await add('second', { onConflict: 'replace' })).toMatchObject({
      jobContext: { name: 'second' },
      retry: 1,
      runAt,
      scheduled: true,
    });
  });

  it("'reschedule': changes only the time", async () => {
    const first = await add('first', {}, { priority: 9 });
    const runAt = new Date(Date.now() + 3_600_000);
    const onConflict = 'reschedule';
    expect(await add('other', { onConflict }, { runAt })).toMatchObject({
      id: first.id,
      jobContext: { name: 'first' },
      priority: 9,
      runAt,
      scheduled: true,
      deduplicated: true,
    });
    expect((await bildad.engine.runJobEngine()).start).toEqual([]);
    expect(await add('other', { onConflict })).toMatchObject({
      scheduled: false,
    });
    await end(await start());
  });

  it("'keepLatest': a waiting job gets the new context and options, and keeps its time", async () => {
    const first = await add('first', {}, { delay: '1h' });
    expect(await add('second', { onConflict: 'keepLatest' })).toMatchObject({
      id: first.id,
      jobContext: { name: 'second' },
      runAt: first.runAt,
      scheduled: true,
      deduplicated: true,
    });
  });

  it("'keepLatest': while a job runs, the latest one waits and starts when the first leaves the queue", async () => {
    const latest = { onConflict: 'keepLatest' } as const;
    await add('first', latest);
    const running = await start();
    const waiting = await add('second', latest);
    expect(waiting).toMatchObject({ deduplicated: false, scheduled: true });
    const { engine } = bildad;
    await expect(engine.rescheduleJob(waiting, 0)).rejects.toThrow(
      'waiting for the job that holds its key',
    );
    expect(await engine.rescheduleJobs({ olderThan: 0 }, 0)).toEqual({
      rescheduled: 0,
    });
    expect(await add('third', latest)).toMatchObject({
      id: waiting.id,
      jobContext: { name: 'third' },
      deduplicated: true,
    });
    await bildad.engine.failJob({ id: running.job.jobRunId }, new Error('no'));
    expect(await add('fourth', latest)).toMatchObject({ id: waiting.id });
    const retried = await start();
    expect(retried.context.name).toBe('first');
    await end(retried);
    expect(await add('last', latest)).toMatchObject({
      id: waiting.id,
      jobContext: { name: 'last' },
    });
    const last = await start();
    expect(last).toMatchObject({
      context: { name: 'last' },
      job: { jobRunIdentifier: waiting.jobRunIdentifier },
    });
    await end(last);
    expect(await queued()).toEqual([]);
  });

  it("'keepLatest': a pass starts the waiting job without another enqueue", async () => {
    const latest = { onConflict: 'keepLatest' } as const;
    await add('first', latest);
    const running = await start();
    const waiting = await add('second', latest);
    expect((await bildad.engine.runJobEngine()).start).toEqual([]);
    await end(running);
    const next = await start();
    expect(next.job.jobRunIdentifier).toBe(waiting.jobRunIdentifier);
    expect((await add('other')).id).toBe(waiting.id);
    await end(next);
  });

  it("'keepLatest': a waiting job can be cancelled", async () => {
    const latest = { onConflict: 'keepLatest' } as const;
    await add('first', latest);
    const running = await start();
    await bildad.engine.cancelJob(await add('second', latest));
    await end(running);
    expect((await bildad.engine.runJobEngine()).start).toEqual([]);
    expect(await add('third')).toMatchObject({ deduplicated: false });
  });

  it("'keepLatest': with within, the job waits until that time is over", async () => {
    const latest = { within: '1h', onConflict: 'keepLatest' } as const;
    await add('first', latest);
    await end(await start());
    const waiting = await add('second', latest);
    expect(waiting).toMatchObject({ deduplicated: false, scheduled: true });
    const inMs = waiting.runAt.getTime() - waiting.insertedAt.getTime();
    expect(inMs).toBeGreaterThan(3_500_000);
    expect(inMs).toBeLessThanOrEqual(3_600_000);
    expect(await add('third', latest)).toMatchObject({
      id: waiting.id,
      jobContext: { name: 'third' },
    });
  });
});

it('a job identifier that is taken is refused, and the key does not change', async () => {
  const { engine } = bildad;
  await engine.enqueueJob(GatedJob, {}, { jobRunIdentifier: `of ${key}` });
  const named = { jobRunIdentifier: `of ${key}` };
  await expect(add('other', {}, named)).rejects.toMatchObject({
    code: 'DUPLICATE_JOB',
    uniqueKey: undefined,
  });
  const first = await add('first', {}, { jobRunIdentifier: `also ${key}` });
  expect(first.deduplicated).toBe(false);
  expect((await add('other', {}, named)).id).toBe(first.id);
});

it('in a transaction: other callers wait for the key, and a rollback frees it', async () => {
  const { dataSource, jobs } = bildad;
  let inside: Promise<unknown> | undefined;
  await expect(
    dataSource.transaction(async (manager) => {
      const mine = await add('mine', {}, { manager });
      expect(mine.deduplicated).toBe(false);
      expect((await add('second', {}, { manager })).id).toBe(mine.id);
      inside = add('other');
      throw new Error('rolled back');
    }),
  ).rejects.toThrow('rolled back');
  expect(await inside).toMatchObject({
    deduplicated: false,
    jobContext: { name: 'other' },
  });
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(1);
});

it('in a transaction: a waiting job whose key the transaction uses does not start before the commit', async () => {
  const first = await add('first', { until: 'started' });
  await bildad.dataSource.transaction(async (manager) => {
    expect((await add('other', { until: 'started' }, { manager })).id).toBe(first.id);
    expect((await bildad.engine.runJobEngine()).start).toEqual([]);
  });
  await end(await start());
});

it.each<[string, unknown]>([
  ['unique', 'a key'],
  ['unique.key', {}],
  ['unique.key', { key: '' }],
  ['unique.key', { key: 5 }],
  ['unique.key', { key: 'x'.repeat(501) }],
  ['unique.until', { key: 'x', until: 'ended' }],
  ['unique.within', { key: 'x', within: 'long' }],
  ['unique.onConflict', { key: 'x', onConflict: 'wait' }],
  ['unique.for', { key: 'x', for: '1h' }],
])('an error names the invalid field %s of %j', async (field, unique) => {
  const error: unknown = await bildad.engine
    .enqueueJob(SimpleJob, {}, { unique } as never)
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(BildadConfigError);
  expect(error).toMatchObject({ field });
  expect(await queued()).toEqual([]);
});

it('enqueueJobs refuses a key, and enqueueJob refuses two keys', async () => {
  const { engine } = bildad;
  const unique = { key };
  await expect(engine.enqueueJobs(SimpleJob, [{}], { unique } as never)).rejects.toMatchObject({
    code: 'BILDAD_CONFIG',
    field: 'unique',
  });
  await expect(
    engine.enqueueJob(SimpleJob, {}, { unique, throttle: { key, every: '1m' } }),
  ).rejects.toMatchObject({
    field: 'unique',
    problem: 'cannot be combined with throttle',
  });
  expect(await queued()).toEqual([]);
});

it('enqueueAndRunJob runs the job that holds the key', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(
    SimpleJob,
    { say: 1 },
    { unique: { key, within: '1h' } },
  );
  await engine.waitForJob(run.jobRunIdentifier);
  expect(await engine.enqueueAndRunJob(SimpleJob, { say: 2 }, { unique: { key } })).toMatchObject({
    id: run.id,
    output: 1,
  });
});

it.each<[string, EnqueueOptions]>([
  ['debounce', { debounce: { key: 'x', wait: 1 } }],
  ['unique.onConflict', { unique: { key: 'x', onConflict: 'keepLatest' } }],
])('enqueueAndRunJob refuses %s', async (field, options) => {
  await expect(bildad.engine.enqueueAndRunJob(SimpleJob, {}, options)).rejects.toMatchObject({
    code: 'BILDAD_CONFIG',
    field,
  });
  expect(await queued()).toEqual([]);
});
