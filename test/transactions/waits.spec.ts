import pg from 'pg';
import { JobEvents, JobNotFoundError } from 'nestjs-bildad';
import type { BildadRuntime } from '../../src/nest/module/runtime.js';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// waitForJob in a process that runs no jobs: it tells the node that does that somebody waits, and is notified of the end.

interface Notice {
  topic: string;
  items?: string[];
  interest?: string[];
}

let worker: TestApp;
let caller: TestApp;
let ear: pg.Client;
let notices: Notice[];
/** Listeners there are anyway: those that write logs. */
let quiet: number;
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
  quiet = listeners(caller);
  ear = new pg.Client({ connectionString: worker.database.url });
  ear.on('error', () => undefined);
  await ear.connect();
  await ear.query('LISTEN "nestjs_bildad:bildad"');
  ear.on('notification', ({ payload }) => notices.push(JSON.parse(payload!) as Notice));
});
beforeEach(() => {
  notices = [];
});
afterEach(() => {
  for (const { door } of GatedJob.arrivals.splice(0)) door.open('cleared');
});
afterAll(async () => {
  await ear.end();
  await caller.close();
  await worker.close();
});

const sent = (list: 'items' | 'interest') =>
  notices.filter(({ topic }) => topic === 'completed').flatMap((notice) => notice[list] ?? []);

/** Listeners to ends of runs: none of a bus where nobody waits. */
const listeners = ({ app }: TestApp) =>
  app
    .get<unknown, { listeners: Map<string, readonly unknown[]> }>(JobEvents)
    .listeners.get('run.finished')?.length ?? 0;

it('resolves with the final run, notified by the node that ran it', async () => {
  const before = listeners(worker);
  const { jobRunIdentifier } = await caller.engine.enqueueJob(GatedJob, {});
  const waiting = caller.engine.waitForJob(GatedJob, jobRunIdentifier);
  const { door } = await GatedJob.arrival();
  await expect.poll(() => listeners(worker)).toBe(before + 1);
  door.open({ said: 'done' });
  expect(await waiting).toMatchObject({
    status: 'DONE',
    result: 'SUCCEEDED',
    output: { said: 'done' },
  });
  await expect.poll(() => sent('items')).toEqual([jobRunIdentifier]);
  expect(listeners(worker)).toBe(before);
  expect(listeners(caller)).toBe(quiet);
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

it('a job that nobody waits for sends no notification', async () => {
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

it('a thousand that wait leave nothing behind', async () => {
  const entries = await caller.engine.enqueueJobs(
    SimpleJob,
    Array.from({ length: 1_000 }, (_none, say) => ({ say })),
  );
  const runs = await Promise.all(
    entries.map(({ jobRunIdentifier }) => caller.engine.waitForJob(jobRunIdentifier)),
  );
  expect(runs.map(({ output }) => output)).toEqual(entries.map((_entry, index) => index));
  expect(listeners(caller)).toBe(quiet);
  const { bildad } = caller.engine as unknown as { bildad: BildadRuntime };
  const { signals } = bildad.waiter as unknown as { signals: { callers: Map<string, unknown> } };
  expect(signals.callers.size).toBe(0);
});

it('gives up in time, and leaves nothing behind', async () => {
  const { jobRunIdentifier } = await caller.engine.enqueueJob(GatedJob, {});
  await expect(caller.engine.waitForJob(jobRunIdentifier, { timeout: 100 })).rejects.toMatchObject({
    code: 'WAIT_TIMEOUT',
  });
  await expect(caller.engine.waitForJob('nobody')).rejects.toBeInstanceOf(JobNotFoundError);
  expect(listeners(caller)).toBe(quiet);
});

it('the error says that a job was cancelled during the wait', async () => {
  const entry = await caller.engine.enqueueJob(GatedJob, {}, { delay: '1h' });
  const waiting = expect(caller.engine.waitForJob(entry.jobRunIdentifier)).rejects.toMatchObject({
    constructor: JobNotFoundError,
    message: expect.stringMatching(/it was cancelled, or removed from/),
  });
  // Sent after the first read found it queued.
  await expect.poll(() => sent('interest')).toContain(entry.jobRunIdentifier);
  await caller.engine.cancelJob(entry);
  await waiting;
});

it('goes on where both listening connections are lost meanwhile', async () => {
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

it('without notifications it finds out by polling', async () => {
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
