import { IsInt, IsString } from 'class-validator';
import {
  BildadConfigError,
  BildadJob,
  InvalidJobContextError,
  JobContextVersionError,
  type BildadJobOptions,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { bootError } from '../support/host.js';

// Three versions of a job's context. Nodes with each of them share a queue.

class NameContext {
  @IsString() name!: string;
}

class NamesContext {
  @IsString() first!: string;
  @IsString() last!: string;
}

class AgeContext extends NamesContext {
  @IsInt() age!: number;
}

const upcasts: unknown[] = [];
const seen: { deploy: number; context: unknown }[] = [];

function deploy(version: number, options: Partial<BildadJobOptions>) {
  @BildadJob({ code: 'EVOLVES', maxRetries: 1, ...options })
  class EvolvesJob implements JobHandler<object> {
    runJob(context: object): number {
      seen.push({ deploy: version, context });
      return version;
    }
  }
  return EvolvesJob;
}

const split = ({ name }: NameContext) => {
  const [first, last] = name.split(' ');
  return { first, last };
};

const First = deploy(0, { context: NameContext });
const Second = deploy(1, {
  context: NamesContext,
  version: 1,
  upcast: split,
});
const Third = deploy(2, {
  context: AgeContext,
  version: 2,
  upcast: async (context: NameContext & NamesContext, from) => {
    upcasts.push({ context, from });
    const { first, last } = from === 0 ? split(context) : context;
    if (last === 'Nobody') throw new RangeError('nobody of that name');
    return Promise.resolve({ first, last, age: last === 'Young' ? 0.5 : 36 });
  },
});

let third: TestApp;
let second: TestApp;
let first: TestApp;
beforeAll(async () => {
  // Deployed one after the other: the last one has the newest declaration.
  first = await bootApp({ providers: [First] });
  const { database } = first;
  second = await bootApp({ providers: [Second], database });
  third = await bootApp({ providers: [Third], database });
});
afterAll(async () => {
  await third.close();
  await second.close();
  await first.close();
});
beforeEach(() => {
  seen.length = 0;
  upcasts.length = 0;
});

const ada = { name: 'Ada Lovelace' };

it('contexts of older versions are upcast, then validated', async () => {
  const entries = [
    await first.engine.enqueueJob(First, ada),
    await second.engine.enqueueJob(Second, { first: 'Ada', last: 'King' }),
    await third.engine.enqueueJob(Third, { first: 'A', last: 'L', age: 1 }),
  ];
  expect(entries[1]!.jobContext).toEqual({ first: 'Ada', last: 'King' });
  await third.engine.runJobEngine();
  for (const { jobRunIdentifier } of entries)
    expect(await third.engine.waitForJob(jobRunIdentifier)).toMatchObject({
      output: 2,
      retry: 0,
    });
  expect(seen.map(({ context }) => context)).toEqual(
    expect.arrayContaining([
      { first: 'Ada', last: 'Lovelace', age: 36 },
      { first: 'Ada', last: 'King', age: 36 },
      { first: 'A', last: 'L', age: 1 },
    ]),
  );
  for (const { context } of seen) expect(context).toBeInstanceOf(AgeContext);
  expect(upcasts).toHaveLength(2);
  expect(upcasts).toEqual(
    expect.arrayContaining([
      { context: ada, from: 0 },
      { context: { first: 'Ada', last: 'King' }, from: 1 },
    ]),
  );
});

it('a job whose upcast context is invalid ends, and one whose upcast throws is retried', async () => {
  const young = await first.engine.enqueueJob(First, { name: 'A Young' });
  const nobody = await first.engine.enqueueJob(First, { name: 'A Nobody' });
  await expect(third.engine.runJob(young)).rejects.toThrow(InvalidJobContextError);
  expect(await third.engine.waitForJob(young.jobRunIdentifier)).toMatchObject({
    reason: expect.stringMatching(/^invalid job context: age/) as string,
    // The stored context is not upcast.
    jobContext: { name: 'A Young' },
  });
  await expect(third.engine.runJob(nobody)).rejects.toThrow(RangeError);
  await third.engine.runJob(nobody).catch(() => undefined);
  expect(await third.engine.waitForJob(nobody.jobRunIdentifier)).toMatchObject({
    reason: 'nobody of that name',
    retry: 1,
  });
  expect(seen).toEqual([]);
});

it('a job with an unknown newer version is released, is reported, and runs where the version is known', async () => {
  const { engine, next, jobs } = first;
  const entry = await third.engine.enqueueJob(Third, {
    first: 'A',
    last: 'B',
    age: 3,
  });
  for (let times = 0; times < 3; times++) {
    const released = next('entry.released');
    const { start } = await engine.runJobEngine();
    expect(start).toMatchObject([
      { ok: false, error: { version: 2, known: 0, templateCode: 'EVOLVES' } },
    ]);
    expect(await released).toMatchObject({
      jobQueueEntryId: entry.id,
      jobRunIdentifier: entry.jobRunIdentifier,
      error: expect.any(JobContextVersionError) as Error,
    });
  }
  expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
    status: 'AVAILABLE',
    retry: 0,
    uncountedRuns: 0,
    currentJobRunId: null,
    runAt: entry.runAt,
    jobContext: entry.jobContext,
  });
  expect(await jobs.listJobRunsForIdentifier(entry.jobRunIdentifier)).toEqual([]);
  await expect(second.engine.runJob(entry)).rejects.toThrow(
    /has version 2, but this process knows only version 1/,
  );
  await third.engine.runJobEngine();
  expect(await first.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    output: 2,
    retry: 0,
  });
  expect(seen).toHaveLength(1);
});

it('a released job with an unknown version delays other jobs by one pass only', async () => {
  const app = await bootApp({
    providers: [First],
    options: { tickInterval: '20ms', concurrency: 1 },
    database: first.database,
  });
  const newer = await third.engine.enqueueJobs(
    Third,
    Array.from({ length: 20 }, () => ({ first: 'A', last: 'B', age: 3 })),
    { priority: 1 },
  );
  const older = await first.engine.enqueueJob(First, ada);
  expect(await app.engine.waitForJob(older.jobRunIdentifier)).toMatchObject({
    output: 0,
  });
  await app.close();
  await third.engine.runJobEngine();
  await third.engine.runJobEngine();
  for (const { jobRunIdentifier } of newer)
    expect(await third.engine.waitForJob(jobRunIdentifier)).toMatchObject({
      output: 2,
      retry: 0,
    });
});

it('a job with a crash count and an unknown version is released once, not by every pass', async () => {
  const { engine, events, sql, jobs } = first;
  const { id, jobRunIdentifier } = await third.engine.enqueueJob(Third, {
    first: 'A',
    last: 'B',
    age: 3,
  });
  await sql('UPDATE bildad.job_queue_entries SET crashes = 1, scheduled = true WHERE id = $1', [
    id,
  ]);
  const released: unknown[] = [];
  const off = events.on('entry.released', (event) => released.push(event));
  // A heartbeat reports such jobs to the node.
  await expect
    .poll(async () => {
      await engine.runJobEngine();
      return released.length;
    })
    .toBe(1);
  const entry = await jobs.getJobQueueEntryForIdentifier(jobRunIdentifier);
  expect(entry).toMatchObject({ status: 'AVAILABLE', retry: 0, crashes: 1 });
  expect(entry!.runAt.getTime()).toBeGreaterThan(Date.now());
  off();
  await engine.cancelJob({ id });
});

describe('enqueueing by code', () => {
  it('a producer without the class validates against the last declaration', async () => {
    const newest = await bootApp({
      providers: [Third],
      database: first.database,
    });
    await newest.close();
    const producer = await bootApp({
      options: { role: 'producer' },
      database: first.database,
    });
    const enqueue = (context: object) => producer.engine.enqueueJob('EVOLVES', context);
    await expect(enqueue(ada)).rejects.toThrow(InvalidJobContextError);
    const entry = await enqueue({ first: 'A', last: 'B', age: 4 });
    await third.engine.runJobEngine();
    expect(await producer.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({ output: 2 });
    expect(upcasts).toEqual([]);
    await producer.close();
  });
});

it('retryJob upcasts an old context, and validates a new context as of the current version', async () => {
  const old = await first.engine.enqueueJob(First, { name: 'A Young' });
  await third.engine.runJob(old).catch(() => undefined);
  const failed = await third.engine.waitForJob(old.jobRunIdentifier);
  await expect(third.engine.retryJob(failed)).rejects.toThrow(/age/);
  const edited = await third.engine.retryJob(failed, {
    context: { first: 'A', last: 'Y', age: 7 },
  });
  // This node has no upcast for it, so the context is validated when the job runs.
  const retryByOldNode = await first.engine.retryJob(failed);
  expect(retryByOldNode.jobContext).toEqual({ name: 'A Young' });
  await first.engine.cancelJob(retryByOldNode);
  await third.engine.runJobEngine();
  expect(await third.engine.waitForJob(edited.jobRunIdentifier)).toMatchObject({
    output: 2,
  });
});

it.each<[string, Partial<BildadJobOptions>, RegExp]>([
  [
    'a version of 0',
    { version: 0 },
    /^version must be an integer .* \(@BildadJob of EvolvesJob\)$/,
  ],
  ['a fractional version', { version: 1.5 }, /^version must be an integer/],
  ['an upcast without a version', { upcast: split }, /^version is required with upcast/],
  [
    'a version 2 without an upcast',
    { version: 2 },
    /^upcast is required from version 2 on: a function that turns older contexts into version 2 \(@BildadJob of EvolvesJob\)$/,
  ],
  [
    'an upcast that is not a function',
    { version: 1, upcast: 'split' as unknown as () => void },
    /^upcast must be a function that .*, got 'split'/,
  ],
])('%s fails the boot', async (_what, options, message) => {
  const error = await bootError({
    url: first.database.url,
    providers: [deploy(0, options)],
  });
  expect(error).toBeInstanceOf(BildadConfigError);
  expect(error.message).toMatch(message);
});
