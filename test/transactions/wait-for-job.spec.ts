import pg from 'pg';
import { JobEvents, JobNotFoundError } from 'nestjs-bildad';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// waitForJob in a process that runs no jobs: it announces its interest to the node that runs the
// job, and that node notifies it of the end.

interface Notice {
  topic: string;
  items?: string[];
  interest?: string[];
}

let worker: TestApp;
let caller: TestApp;
let listener: pg.Client;
let notices: Notice[];
/** Listeners that exist without a waiter: those that write log lines. */
let idleListeners: number;
beforeAll(async () => {
  worker = await bootApp({
    providers: [SimpleJob, GatedJob],
    options: { tickInterval: '50ms', concurrency: 100 },
  });
  caller = await bootApp({
    database: worker.database,
    providers: [SimpleJob, GatedJob],
    options: { role: 'producer' },
  });
  idleListeners = listeners(caller);
  listener = new pg.Client({ connectionString: worker.database.url });
  listener.on('error', () => undefined);
  await listener.connect();
  await listener.query('LISTEN "nestjs_bildad:bildad"');
  listener.on('notification', ({ payload }) => notices.push(JSON.parse(payload!) as Notice));
});
beforeEach(() => {
  notices = [];
});
afterEach(() => {
  for (const { door } of GatedJob.arrivals.splice(0)) door.open('cleared');
});
afterAll(async () => {
  await listener.end();
  await caller.close();
  await worker.close();
});

const sent = (list: 'items' | 'interest') =>
  notices.filter(({ topic }) => topic === 'completed').flatMap((notice) => notice[list] ?? []);

/** Number of run.finished listeners. */
const listeners = ({ app }: TestApp) =>
  app
    .get<unknown, { listeners: Map<string, readonly unknown[]> }>(JobEvents)
    .listeners.get('run.finished')?.length ?? 0;

it('waitForJob resolves with the final run when the node that ran it sends a notification', async () => {
  const before = listeners(worker);
  const { jobRunIdentifier } = await caller.engine.enqueueJob(GatedJob, {});
  const waiting = caller.engine.waitForJob(GatedJob, jobRunIdentifier);
  const { door } = await GatedJob.arrival();
  await expect.poll(() => listeners(worker)).toBe(before + 1);
  door.open({ value: 'done' });
  expect(await waiting).toMatchObject({
    status: 'DONE',
    result: 'SUCCEEDED',
    output: { value: 'done' },
  });
  await expect.poll(() => sent('items')).toEqual([jobRunIdentifier]);
  expect(listeners(worker)).toBe(before);
  expect(listeners(caller)).toBe(idleListeners);
});

it('a job that is retried sends a notification for its last run only', async () => {
  const { jobRunIdentifier } = await caller.engine.enqueueJob(
    SimpleJob,
    { fail: 'always' },
    { maxRetries: 2, delay: 200 },
  );
  const run = await caller.engine.waitForJob(jobRunIdentifier);
  expect(run).toMatchObject({ retry: 2, result: 'FAILED', output: null });
  await expect.poll(() => sent('items')).toEqual([jobRunIdentifier]);
});

it('a job without a waiter sends no notification', async () => {
  const ended = worker.next('run.finished');
  await caller.engine.enqueueJob(SimpleJob, {});
  await ended;
  // An earlier notification would have arrived before this one.
  const { jobRunIdentifier } = await caller.engine.enqueueJob(
    SimpleJob,
    {},
    {
      delay: 200,
    },
  );
  await caller.engine.waitForJob(jobRunIdentifier);
  await expect.poll(() => sent('items')).toEqual([jobRunIdentifier]);
});

it('a thousand waiters leave no listeners behind', async () => {
  const entries = await caller.engine.enqueueJobs(
    SimpleJob,
    Array.from({ length: 1_000 }, (_none, say) => ({ say })),
  );
  const runs = await Promise.all(
    entries.map(({ jobRunIdentifier }) => caller.engine.waitForJob(jobRunIdentifier)),
  );
  expect(runs.map(({ output }) => output)).toEqual(entries.map((_entry, index) => index));
  expect(listeners(caller)).toBe(idleListeners);
  const { bildad } = caller.engine as unknown as { bildad: BildadRuntime };
  const { signals } = bildad.waiter as unknown as { signals: { callers: Map<string, unknown> } };
  expect(signals.callers.size).toBe(0);
});

it('waitForJob rejects at its timeout and leaves no listener behind', async () => {
  const { jobRunIdentifier } = await caller.engine.enqueueJob(GatedJob, {});
  await expect(caller.engine.waitForJob(jobRunIdentifier, { timeout: 100 })).rejects.toMatchObject({
    code: 'WAIT_TIMEOUT',
  });
  await expect(caller.engine.waitForJob('nobody')).rejects.toBeInstanceOf(JobNotFoundError);
  expect(listeners(caller)).toBe(idleListeners);
});

it('the error says that a job was cancelled during the wait', async () => {
  const entry = await caller.engine.enqueueJob(GatedJob, {}, { delay: '1h' });
  const waiting = expect(caller.engine.waitForJob(entry.jobRunIdentifier)).rejects.toMatchObject({
    constructor: JobNotFoundError,
    message: expect.stringMatching(/it was cancelled or removed from the queue/),
  });
  // The interest is sent after the first read found the job in the queue.
  await expect.poll(() => sent('interest')).toContain(entry.jobRunIdentifier);
  await caller.engine.cancelJob(entry);
  await waiting;
});

it('waitForJob resolves although both listening connections are lost', async () => {
  const { jobRunIdentifier } = await caller.engine.enqueueJob(GatedJob, {});
  const waiting = caller.engine.waitForJob(jobRunIdentifier);
  let arrival = await GatedJob.arrival();
  while (arrival.job.jobRunIdentifier !== jobRunIdentifier) {
    arrival.door.open('of an earlier test');
    arrival = await GatedJob.arrival();
  }
  await worker.database.sql(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND query LIKE 'LISTEN%' AND application_name LIKE '%bildad%'`,
  );
  arrival.door.open('done');
  expect(await waiting).toMatchObject({ output: 'done' });
});

it('waitForJob polls when notifications are off', async () => {
  const silent = await bootApp({
    database: worker.database,
    providers: [SimpleJob],
    options: { role: 'producer', notify: false },
  });
  const { jobRunIdentifier } = await silent.engine.enqueueJob(SimpleJob, {
    say: 'found',
  });
  expect(await silent.engine.waitForJob(jobRunIdentifier)).toMatchObject({
    output: 'found',
  });
  expect(sent('interest')).toEqual([]);
  await silent.close();
});
