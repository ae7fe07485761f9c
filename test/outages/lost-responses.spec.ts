import { DuplicateJobError, EnqueueOutcomeUnknownError } from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { SimpleJob } from '../support/handlers.js';
import { startProxy, type Proxy } from '../support/proxy.js';

// The server executes a statement and its response is lost with the connection. Every statement
// takes effect exactly once.

let database: TestDatabase;
beforeAll(async () => {
  database = await createDatabase();
});
afterAll(() => database.drop());

let proxy: Proxy;
/** Connected through the proxy; ticks only in the tests that enable it. */
let bildad: TestApp;
const bootThroughProxy = (options = {}) =>
  bootApp({
    providers: [SimpleJob],
    database: { ...database, url: proxy.url },
    options: { queryTimeout: 1_000, ...options },
  });
beforeEach(async () => {
  proxy = await startProxy(database.url);
  bildad = await bootThroughProxy();
  const run = await bildad.engine.enqueueAndRunJob(SimpleJob, {});
  await bildad.engine.waitForJob(run.jobRunIdentifier);
});
afterEach(async () => {
  await proxy.pass();
  await bildad.app.close();
  await database.sql('TRUNCATE bildad.job_queue_entries, bildad.job_runs RESTART IDENTITY');
  await proxy.close();
});

const identifiers = async () =>
  (
    await database.sql<{ id: string }>(
      `SELECT job_run_identifier AS id FROM bildad.job_queue_entries e ORDER BY e.id`,
    )
  ).map(({ id }) => id);

const rejectedRuns = (app: TestApp) => {
  const rejected: string[] = [];
  app.events.on('run.finishRejected', ({ jobRunId }) => rejected.push(jobRunId));
  return rejected;
};

it('an enqueue with a lost response creates one entry and returns it', async () => {
  const cut = proxy.cutAfter('enqueue_jobs');
  const entry = await bildad.engine.enqueueJob(SimpleJob, { say: 'once' });
  await cut;
  expect(await identifiers()).toEqual([entry.jobRunIdentifier]);
  expect(await bildad.jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toEqual(entry);
});

it('concurrent enqueues with a lost response create one entry each, and a duplicate is rejected', async () => {
  await bildad.engine.enqueueJob(SimpleJob, { say: 'before' }, { jobRunIdentifier: 'taken' });
  const cut = proxy.cutAfter('enqueue_jobs');
  const answers = await Promise.allSettled([
    bildad.engine.enqueueJob(SimpleJob, { say: 0 }, { jobRunIdentifier: 'a' }),
    bildad.engine.enqueueJob(SimpleJob, { say: 1 }, { jobRunIdentifier: 'taken' }),
    bildad.engine.enqueueJob(SimpleJob, { say: 2 }, { jobRunIdentifier: 'b' }),
  ]);
  await cut;
  expect(answers).toMatchObject([
    { value: { jobRunIdentifier: 'a' } },
    { reason: expect.any(DuplicateJobError) as object },
    { value: { jobRunIdentifier: 'b' } },
  ]);
  expect(await identifiers()).toEqual(['taken', 'a', 'b']);
});

it('a job that has already run before the retry is not inserted again', async () => {
  const otherNode = await bootApp({ providers: [SimpleJob], database });
  try {
    const cut = proxy.cutAfter('enqueue_jobs');
    const enqueued = bildad.engine.enqueueJob(
      SimpleJob,
      { say: 'quick' },
      { jobRunIdentifier: 'quick' },
    );
    await cut.then(() => proxy.refuse());
    await otherNode.engine.runJobEngine();
    const run = await otherNode.engine.waitForJob('quick');
    await proxy.pass();
    expect(await enqueued).toMatchObject({
      id: run.jobQueueEntryId,
      jobRunIdentifier: 'quick',
    });
    expect(await identifiers()).toEqual([]);
  } finally {
    await otherNode.app.close();
  }
});

it('an insert that did not reach the server is retried', async () => {
  proxy.blackholeOpen();
  const entry = await bildad.engine.enqueueJob(SimpleJob, { say: 'late' });
  expect(await identifiers()).toEqual([entry.jobRunIdentifier]);
});

it('an unreachable database leaves the outcome unknown, and the error names the job', async () => {
  const cut = proxy.cutAfter('enqueue_jobs');
  const enqueued = bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'unknown-outcome' });
  const failed = expect(enqueued).rejects.toMatchObject({
    constructor: EnqueueOutcomeUnknownError,
    code: 'ENQUEUE_OUTCOME_UNKNOWN',
    jobRunIdentifier: 'unknown-outcome',
  });
  await cut;
  await proxy.refuse();
  await failed;
  await proxy.pass();
  // Retried with the same identifier, both calls create one job.
  await expect
    .poll(() =>
      bildad.engine
        .enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'unknown-outcome' })
        .catch((error: { code?: string }) => error.code),
    )
    .toBe('DUPLICATE_JOB');
  expect(await identifiers()).toEqual(['unknown-outcome']);
});

it('a lost response to the COMMIT of enqueueJobs: all entries exist', async () => {
  const cut = proxy.cutAfter('COMMIT');
  const entries = await bildad.engine.enqueueJobs(
    SimpleJob,
    Array.from({ length: 2_500 }, (_none, say) => ({ say })),
  );
  await cut;
  expect(await identifiers()).toEqual(entries.map(({ jobRunIdentifier }) => jobRunIdentifier));
});

it('a connection lost before the COMMIT of enqueueJobs: no entry exists, and the error says that nothing was done', async () => {
  const cut = proxy.cutAfter('enqueue_jobs');
  await expect(bildad.engine.enqueueJobs(SimpleJob, [{}, {}])).rejects.toMatchObject({
    mayBeDone: false,
  });
  await cut;
  expect(await identifiers()).toEqual([]);
});

it.each([
  ['succeeds', { say: 'well' }, 'SUCCEEDED', 'removed'],
  ['fails for good', { fail: 'badly' }, 'FAILED', 'removed'],
  ['fails and is retried', { fail: 'badly' }, 'FAILED', 'reopened'],
])(
  'the end of a run that %s is reported once with the right outcome',
  async (_what, context, result, entry) => {
    const lost = rejectedRuns(bildad);
    const finished = bildad.next('run.finished');
    const cut = proxy.cutAfter('finish_job_runs');
    const run = await bildad.engine.enqueueAndRunJob(SimpleJob, context, {
      maxRetries: entry === 'reopened' ? 1 : 0,
    });
    expect(await finished).toMatchObject({ jobRunId: run.id, entry });
    await cut;
    expect(lost).toEqual([]);
    expect(
      await database.sql('SELECT result FROM bildad.job_runs WHERE id = $1', [run.id]),
    ).toEqual([{ result }]);
  },
);

it('completeJob with a lost response resolves', async () => {
  const cut = proxy.cutAfter('finish_job_runs');
  await bildad.engine.runJobEngine();
  const [{ id }] = (await database.sql<{ id: string }>(
    `WITH entry AS (
       INSERT INTO bildad.job_queue_entries (job_template_id, job_run_identifier, status, retry, priority, timeout_ms, max_retries,
         job_context, run_at)
       SELECT id, 'hand', 'RUNNING', 1, 0, 60000, 0, '{}', now() FROM bildad.job_templates WHERE code = 'SIMPLE' RETURNING *
     ), run AS (
       INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name, node_id,
         job_context, available_at, timeout_at, expires_at)
       SELECT job_template_id, id, 'hand', 0, 'hand', 'elsewhere', '{}', now(), now() + interval '1 h', now() + interval '1 h' FROM entry
       RETURNING id
     ) SELECT id::text FROM run`,
  )) as [{ id: string }];
  await database.sql(
    `UPDATE bildad.job_queue_entries SET current_job_run_id = $1 WHERE job_run_identifier = 'hand'`,
    [id],
  );
  expect(await bildad.engine.completeJob({ id }, 'by hand')).toMatchObject({
    result: 'SUCCEEDED',
    output: 'by hand',
  });
  await cut;
  expect(await identifiers()).toEqual([]);
});

it('an end that was recorded differently elsewhere is reported as rejected', async () => {
  const late = bildad.next('run.finishRejected');
  const cut = proxy.cutAfter('finish_job_runs').then(() => proxy.refuse());
  const run = await bildad.engine.enqueueAndRunJob(SimpleJob, { say: 'mine' }, { maxRetries: 0 });
  await cut;
  await database.sql(
    `UPDATE bildad.job_runs SET result = 'FAILED', outcome = 'expired', reason = 'Expired', output = NULL WHERE id = $1`,
    [run.id],
  );
  await proxy.pass();
  expect(await late).toMatchObject({ jobRunId: run.id, outcome: 'completed' });
});

it('thousands of short jobs run once and are reported once, although responses to claims and ends are lost', async () => {
  await database.sql('UPDATE bildad.job_configs SET lease_ms = 2000');
  const fast = await bootThroughProxy({ tickInterval: 50 });
  const lost = rejectedRuns(fast);
  let finished = 0;
  fast.events.on('run.finished', () => {
    finished++;
  });
  try {
    const JOBS = 8_000;
    const cuts = [
      proxy.cutAfter('finish_job_runs'),
      bildad.engine.enqueueJobs(
        SimpleJob,
        Array.from({ length: JOBS }, () => ({})),
        { maxRetries: 0 },
      ),
    ];
    await Promise.all(cuts);
    await proxy.cutAfter('."claim_job');
    await expect
      .poll(() => identifiers().then(({ length }) => length), {
        timeout: 15_000,
      })
      .toBe(0);
    expect(
      await database.sql(`SELECT result, retry, count(*)::int FROM bildad.job_runs GROUP BY 1, 2`),
    ).toEqual([{ result: 'SUCCEEDED', retry: 0, count: JOBS + 1 }]);
    await expect.poll(() => finished).toBe(JOBS);
    expect(lost).toEqual([]);
  } finally {
    await fast.app.close();
    await database.sql('UPDATE bildad.job_configs SET lease_ms = 15000');
  }
});
