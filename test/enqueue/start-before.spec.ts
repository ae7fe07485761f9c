import { BildadConfigError, DuplicateJobError } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// A job that does not start before `startBefore` never runs: it ends as FAILED "Missed" in the history.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob, GatedJob] });
});
afterAll(() => bildad.close());
beforeEach(() => {
  SimpleJob.runs = 0;
});
afterEach(() => bildad.engine.cancelJobs({ newerThan: '1h' }));

const past = () => new Date(Date.now() - 60_000);
const runsOf = ({ jobRunIdentifier }: { jobRunIdentifier: string }) =>
  bildad.jobs.listJobRunsForIdentifier(jobRunIdentifier);
/** Sets `startBefore` of the entry to the current time. */
const makeLate = (entryId: string) =>
  bildad.sql(`UPDATE bildad.job_queue_entries SET start_before = clock_timestamp() WHERE id = $1`, [
    entryId,
  ]);

it('a job that starts in time runs with its context', async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, { say: 'in time' }, { startBefore: '1h' });
  expect(entry.jobContext).toEqual({ say: 'in time' });
  expect(entry.startBefore!.getTime() - entry.insertedAt.getTime()).toBe(3_600_000);
  expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toEqual(entry);
  expect(await jobs.listAllJobsInTheQueue()).toEqual([entry]);
  const { start } = await engine.runJobEngine();
  expect(start).toMatchObject([{ ok: true, jobRun: { jobContext: { say: 'in time' } } }]);
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    output: 'in time',
    jobContext: { say: 'in time' },
  });
  expect(await jobs.listAllJobRuns({ limit: 1 })).toMatchObject([
    { jobContext: { say: 'in time' } },
  ]);
});

it('a pass ends missed jobs, due or not, before it claims', async () => {
  const { engine, jobs, events } = bildad;
  const finished: unknown[] = [];
  const off = events.on('run.finished', (event) => finished.push(event));
  const entries = [
    await engine.enqueueJob(SimpleJob, { say: 1 }, { startBefore: past() }),
    await engine.enqueueJob(SimpleJob, { say: 2 }, { startBefore: '2h', delay: '1h' }),
    await engine.enqueueJob(SimpleJob, { say: 3 }, { startBefore: '1h' }),
  ];
  await makeLate(entries[1]!.id);
  const { start } = await engine.runJobEngine();
  expect(start).toHaveLength(1);
  await engine.waitForJob(entries[2]!.jobRunIdentifier);
  for (const entry of entries.slice(0, 2)) {
    const [run, ...others] = await runsOf(entry);
    expect(others).toEqual([]);
    expect(run).toMatchObject({
      status: 'DONE',
      result: 'FAILED',
      reason: 'Missed',
      retry: 0,
      jobQueueEntryId: entry.id,
      jobContext: entry.jobContext,
      error: null,
    });
    expect(finished).toContainEqual({
      jobRunId: run!.id,
      jobRunIdentifier: entry.jobRunIdentifier,
      templateCode: 'SIMPLE',
      retry: 0,
      outcome: 'missed',
      entry: 'removed',
    });
    expect(await engine.waitForJob(entry.jobRunIdentifier)).toEqual(run);
  }
  expect(SimpleJob.runs).toBe(1);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
  off();
});

it('a job is not rescheduled to startBefore or later', async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, {}, { startBefore: '2h', delay: '1h' });
  for (const change of [
    () => engine.rescheduleJob(entry, '3h'),
    // The database stores microseconds.
    () => engine.rescheduleJob(entry, new Date(entry.startBefore!.getTime() + 1)),
    () => engine.updateJob(entry, { delay: '2d', priority: 1 }),
  ])
    await expect(change()).rejects.toMatchObject({
      code: 'JOB_NOT_AVAILABLE',
      why: `it is or was to be started before ${entry.startBefore!.toISOString()}, and nothing was changed`,
    });
  expect(await engine.rescheduleJobs({ job: SimpleJob }, '3h')).toEqual({
    rescheduled: 0,
  });
  expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
    priority: 5,
    runAt: entry.runAt,
  });
  expect(await engine.rescheduleJob(entry, '90m')).toMatchObject({
    startBefore: entry.startBefore,
  });
  expect(await engine.rescheduleJobs({ job: SimpleJob }, 0)).toEqual({
    rescheduled: 1,
  });
});

it('a job that misses startBefore between the pass and its start does not run', async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, {}, { startBefore: '1h', maxRetries: 5 });
  await makeLate(entry.id);
  // Claims the entry without a pass.
  await engine.runJob(entry);
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    result: 'FAILED',
    reason: 'Missed',
  });
  expect(SimpleJob.runs).toBe(0);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

it('a job that started in time is retried after startBefore', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(
    SimpleJob,
    { fail: 'try again' },
    { startBefore: '1h', maxRetries: 1 },
  );
  for (let run = 0; run < 2; run++) {
    const finished = bildad.next('run.finished');
    expect((await engine.runJobEngine()).start).toHaveLength(1);
    await finished;
    await makeLate(entry.id);
  }
  expect(await runsOf(entry)).toMatchObject([{ reason: 'try again' }, { reason: 'try again' }]);
});

it("startBefore works in the caller's transaction and for many jobs", async () => {
  const { engine, jobs, dataSource } = bildad;
  await dataSource.transaction(async (manager) => {
    const entry = await engine.enqueueJob(
      SimpleJob,
      {},
      { manager, startBefore: '1h', jobRunIdentifier: 'mine' },
    );
    expect(entry.startBefore).toBeInstanceOf(Date);
    const many = await engine.enqueueJobs(SimpleJob, [{}, { say: 1 }], {
      manager,
      startBefore: past(),
    });
    expect(many.every(({ startBefore }) => startBefore! < new Date())).toBe(true);
  });
  await expect(
    engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'mine', startBefore: '1h' }),
  ).rejects.toThrow(DuplicateJobError);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(3);
  expect((await engine.runJobEngine()).start).toHaveLength(1);
  await engine.waitForJob('mine');
  expect(await jobs.listJobRunsForResult('FAILED', { limit: 2 })).toMatchObject([
    { reason: 'Missed', jobContext: { say: 1 } },
    { reason: 'Missed', jobContext: {} },
  ]);
});

it('updateJob keeps startBefore', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, {}, { startBefore: '1h' });
  expect(await engine.updateJob(entry, { context: { say: 'new' } })).toMatchObject({
    jobContext: { say: 'new' },
    startBefore: entry.startBefore,
  });
  await makeLate(entry.id);
  await engine.runJob(entry);
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    reason: 'Missed',
    jobContext: { say: 'new' },
  });
});

it('a missed job can be retried with retryJob', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, { say: 'hi' }, { startBefore: past() });
  await engine.runJobEngine();
  const missed = await engine.waitForJob(entry.jobRunIdentifier);
  const retried = await engine.retryJob(missed);
  expect(retried).toMatchObject({
    startBefore: null,
    jobContext: { say: 'hi' },
    retryOfJobRunId: missed.id,
  });
  await engine.runJobEngine();
  expect(await engine.waitForJob(retried.jobRunIdentifier)).toMatchObject({
    output: 'hi',
  });
});

it.each<[string, object, string]>([
  ['an invalid time', { startBefore: 'soon' }, 'startBefore'],
  ['an invalid Date', { startBefore: new Date(NaN) }, 'startBefore'],
  ['a startBefore of 0', { startBefore: 0 }, 'startBefore'],
  ['a time before runAt', { startBefore: past(), runAt: new Date() }, 'startBefore'],
  ['a duration within the delay', { startBefore: '1m', delay: '1m' }, 'startBefore'],
])('%s is refused', async (_what, options, field) => {
  const error: unknown = await bildad.engine
    .enqueueJob(SimpleJob, {}, options)
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(BildadConfigError);
  expect(error).toMatchObject({ field });
  expect(await bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

it("a context with the key of the engine's envelope is refused", async () => {
  await expect(
    bildad.engine.enqueueJob(SimpleJob, { $bildad: {}, say: 1 } as object),
  ).rejects.toThrow(/\$bildad: is not allowed as a key/);
  const entry = await bildad.engine.enqueueJob(SimpleJob, {
    say: { $bildad: { key: 'k' } },
  });
  await bildad.engine.runJobEngine();
  expect(await bildad.engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    output: { $bildad: { key: 'k' } },
  });
});

it('with two nodes, each of many jobs either runs once in time or is missed once', async () => {
  const nodes = await Promise.all(
    Array.from({ length: 2 }, () =>
      bootApp({
        providers: [SimpleJob],
        options: { tickInterval: '10ms', concurrency: 2 },
        database: bildad.database,
      }),
    ),
  );
  const [first] = nodes;
  const entries = await first!.engine.enqueueJobs(
    SimpleJob,
    Array.from({ length: 1_000 }, () => ({})),
    { startBefore: '100ms' },
  );
  const ids = entries.map(({ id }) => id);
  await expect.poll(() => bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);
  const [found] = await bildad.sql(
    `SELECT count(*)::int AS runs, count(DISTINCT job_queue_entry_id)::int AS jobs,
       count(*) FILTER (WHERE result = 'SUCCEEDED' AND started_at < available_at + interval '100 ms')::int AS intime,
       count(*) FILTER (WHERE reason = 'Missed')::int AS missed
     FROM bildad.job_runs WHERE job_queue_entry_id = ANY ($1)`,
    [ids],
  );
  expect(found).toMatchObject({ runs: 1_000, jobs: 1_000 });
  expect(found.intime + found.missed).toBe(1_000);
  expect(SimpleJob.runs).toBe(found.intime);
  for (const node of nodes) await node.close();
});

describe('in an isolated host', () => {
  let isolated: IsolatedApp;
  beforeAll(async () => {
    isolated = await bootIsolated({}, { tickInterval: false });
  });
  afterAll(() => isolated.close());

  it('a job is checked for startBefore when its host is ready', async () => {
    const { engine, sql } = isolated;
    const enqueue = () => engine.enqueueJob('THREAD', { act: 'greet' }, { startBefore: '1h' });
    const [intime, late] = [await enqueue(), await enqueue()];
    await sql(
      `UPDATE bildad.job_queue_entries SET start_before = clock_timestamp() WHERE id = $1`,
      [late.id],
    );
    for (const entry of [intime, late]) await engine.runJob(entry);
    expect(await engine.waitForJob(intime.jobRunIdentifier)).toMatchObject({
      output: 'done',
    });
    expect(await engine.waitForJob(late.jobRunIdentifier)).toMatchObject({
      reason: 'Missed',
    });
  });
});
