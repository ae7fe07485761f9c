import { IsString } from 'class-validator';
import {
  BildadJob,
  JobNotAvailableError,
  type JobHandler,
  type JobQueueEntry,
} from 'nestjs-bildad';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// Malformed rows at the head of the queue do not affect the entries around them.

class NamedContext {
  @IsString() name!: string;
}

@BildadJob({ code: 'NAMED', context: NamedContext, maxRetries: 3 })
class NamedJob implements JobHandler<NamedContext> {
  runJob(): void {}
}

let bildad: TestApp;
let quarantined: string[];
let errors: unknown[];
const providers = [SimpleJob, NamedJob, GatedJob];
beforeEach(async () => {
  bildad = await bootApp({ providers });
  quarantined = [];
  errors = [];
  bildad.events.on('entry.quarantined', ({ reason }) => quarantined.push(reason));
  bildad.events.on('engine.error', ({ doing, error }) => errors.push([doing, error]));
});
afterEach(() => bildad.close());

const E = 'bildad.job_queue_entries';

/** Sets columns past the constraints, as in a table whose constraints were dropped. */
async function setPastConstraints(entry: JobQueueEntry, set: string): Promise<void> {
  const { sql } = bildad;
  const constraints = await sql<{ name: string; is: string }>(
    `SELECT conname AS name, pg_get_constraintdef(oid) AS is FROM pg_constraint WHERE conrelid = $1::regclass AND contype = 'c'`,
    [E],
  );
  for (const { name } of constraints) await sql(`ALTER TABLE ${E} DROP CONSTRAINT ${name}`);
  const columns = ['job_context', 'run_at'];
  for (const column of columns) await sql(`ALTER TABLE ${E} ALTER COLUMN ${column} DROP NOT NULL`);
  await sql(`UPDATE ${E} SET ${set} WHERE id = $1`, [entry.id]);
  for (const { name, is } of constraints)
    await sql(
      `ALTER TABLE ${E} ADD CONSTRAINT ${name} ${is}${is.endsWith('NOT VALID') ? '' : ' NOT VALID'}`,
    );
}

const entryOf = ({ jobRunIdentifier }: JobQueueEntry) =>
  bildad.jobs.getJobQueueEntryForIdentifier(jobRunIdentifier);
const runsOf = ({ jobRunIdentifier }: JobQueueEntry) =>
  bildad.jobs.listJobRunsForIdentifier(jobRunIdentifier);

/** Runs a malformed entry between five others, one of them more urgent. No other entry may fail. */
async function runAmongOthers(
  set: string,
  job: typeof SimpleJob | typeof NamedJob,
  context: object,
): Promise<JobQueueEntry> {
  const { engine } = bildad;
  const first = await engine.enqueueJob(SimpleJob, {}, { priority: -1e6 });
  const malformed = await engine.enqueueJob(job as typeof SimpleJob, context, {
    priority: 0,
  });
  const others = await engine.enqueueJobs(SimpleJob, [{}, {}, {}, {}]);
  await setPastConstraints(malformed, set);
  // Two passes: the second claims entries that were reopened or got a new run number.
  await engine.runJobEngine();
  await engine.runJobEngine();
  for (const { jobRunIdentifier } of [first, ...others])
    expect(await engine.waitForJob(jobRunIdentifier, { timeout: '5s' })).toMatchObject({
      result: 'SUCCEEDED',
      retry: 0,
    });
  return malformed;
}

const claimed = (rest: string) => `status = 'RUNNING', claimed_by = 'gone', retry = 1, ${rest}`;

describe('a malformed entry is quarantined', () => {
  it.each<[what: string, set: string, reason: string]>([
    ['a retry number at the maximum', 'retry = 2147483647', 'retry is out of range'],
    [
      'an uncounted_runs at the maximum',
      'uncounted_runs = 2147483647',
      'uncounted_runs is out of range',
    ],
    ['a retry of -1', 'retry = -1', 'retry is out of range'],
    ['run_at infinity', `run_at = 'infinity'`, 'run_at is infinite'],
    ['run_at -infinity, scheduled', `run_at = '-infinity', scheduled = true`, 'run_at is infinite'],
    ['no run_at', 'run_at = NULL', 'the database refuses it (23502)'],
    ['no context', 'job_context = NULL', 'the database refuses it (23502)'],
    ['a timeout of -1', 'timeout_ms = -1', 'timeout_ms is out of range'],
    ['retries of -1', 'max_retries = -1', 'max_retries is out of range'],
    [
      'an identifier too long for the history',
      // Random text, which does not compress.
      `job_run_identifier = (SELECT left(string_agg(md5(n::text), ''), 2690) FROM generate_series(1, 90) n)`,
      'its identifier is too long',
    ],
    ['an unknown status', `status = 'HELD'`, 'its status is unknown'],
    ['a deleted template', 'job_template_id = 4711', 'its template does not exist'],
    [
      'a claim without an expiry',
      claimed('claimed_at = now(), claim_expires_at = NULL'),
      'only a part of claimed_by, claimed_at and claim_expires_at is set',
    ],
    [
      'a claim without a start',
      claimed('claimed_at = NULL, claim_expires_at = now()'),
      'only a part of claimed_by, claimed_at and claim_expires_at is set',
    ],
    [
      'a claim without a run',
      claimed('claimed_at = now(), claim_expires_at = now()'),
      'it is claimed, and current_job_run_id is not set',
    ],
  ])('%s', async (_what, set, reason) => {
    await bildad.sql('UPDATE bildad.job_configs SET lease_ms = 1000');
    const malformed = await runAmongOthers(set, SimpleJob, {});
    const { jobs, engine } = bildad;
    // Entries that no node claims are found by the check of all entries, once per lease.
    await expect
      .poll(async () => {
        await engine.runJobEngine();
        return (await jobs.listQuarantinedJobs()).map(({ id }) => id);
      })
      .toEqual([malformed.id]);
    const [entry] = await jobs.listQuarantinedJobs();
    expect(entry).toMatchObject({
      status: 'QUARANTINED',
      quarantineReason: reason,
      quarantinedAt: expect.any(Date) as Date,
    });
    expect(quarantined).toEqual([reason]);
    expect(errors).toEqual([]);
    await expect(engine.runJob(entry!)).rejects.toThrow(/quarantined/);
    expect(await engine.cancelJob(entry!)).toBeNull();
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
  });
});

describe('an unusual entry runs', () => {
  it.each<[what: string, set: string]>([
    ['the maximum timeout', 'timeout_ms = 9223372036854775807'],
    ['the maximum number of retries', 'max_retries = 2147483647'],
    ['the most urgent priority', 'priority = -2147483648'],
    ['a deleted current run', 'current_job_run_id = 4711'],
    ['RUNNING, without a run', `status = 'RUNNING', current_job_run_id = NULL`],
    ['RUNNING, with a deleted run', `status = 'RUNNING', current_job_run_id = 4711`],
    ['due before Christ', `run_at = '4713-01-01 BC'`],
    ['due in the year 200000, and not scheduled', `run_at = '200000-01-01'`],
    ['a backoff that is text', `backoff = '"soon"'`],
    ['more uncounted runs than runs', 'uncounted_runs = 1000'],
  ])('%s', async (_what, set) => {
    await bildad.sql('UPDATE bildad.job_configs SET lease_ms = 1000');
    const malformed = await runAmongOthers(set, SimpleJob, {});
    await expect
      .poll(async () => {
        await bildad.engine.runJobEngine();
        return runsOf(malformed);
      })
      .toMatchObject([{ result: 'SUCCEEDED' }]);
    expect(errors).toEqual([]);
    expect(quarantined).toEqual([]);
  });
});

describe('a malformed entry fails alone', () => {
  it.each<[what: string, set: string]>([
    ['with a text as context', `job_context = '"text"'`],
    ['with a list as context', `job_context = '[]'`],
    ['with JSON null as context', `job_context = 'null'`],
    ['with unknown keys in its context', `job_context = '{"unknown": 1}'`],
    [
      'with a context nested 1000 levels deep',
      `job_context = (repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb`,
    ],
  ])('%s', async (_what, set) => {
    const malformed = await runAmongOthers(set, NamedJob, { name: 'x' });
    expect(
      await bildad.engine.waitForJob(malformed.jobRunIdentifier, {
        timeout: '5s',
      }),
    ).toMatchObject({ result: 'FAILED', retry: 0 });
    expect(errors).toEqual([]);
  });

  it.each([
    '"soon"',
    '[]',
    'true',
    '{"type": "weird"}',
    '{"type": "fixed"}',
    '{"type": "fixed", "delay": 1e300}',
    '{"type": "fixed", "delay": {"$gt": 1}}',
    '{"type": "exponential", "delay": -1}',
    '{"type": "exponential", "jitter": "much"}',
    '{"type": "exponential", "jitter": 1e300}',
    '{"type": "exponential", "jitter": -1e300}',
    '{"type": "exponential", "maxDelay": "never"}',
  ])('with a backoff of %s', async (backoff) => {
    const malformed = await runAmongOthers(`backoff = '${backoff}'`, SimpleJob, {
      fail: 'always fails',
    });
    await expect
      .poll(() => runsOf(malformed))
      .toMatchObject([{ status: 'DONE', reason: 'always fails' }]);
    expect(await entryOf(malformed)).toMatchObject({
      status: 'AVAILABLE',
      scheduled: true,
    });
  });

  it('with an invalid backoff in its template', async () => {
    const { engine, sql } = bildad;
    await sql(
      `UPDATE bildad.job_templates SET default_backoff = '{"jitter": []}' WHERE code = 'SIMPLE'`,
    );
    const entry = await engine.enqueueJob(SimpleJob, { fail: 'so' });
    await engine.runJobEngine();
    await expect.poll(() => runsOf(entry)).toMatchObject([{ status: 'DONE' }]);
  });
});

it('a run ends although its entry is malformed', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  await engine.runJobEngine();
  const { job } = await GatedJob.arrival();
  await setPastConstraints(entry, 'retry = 2147483647');
  // The engine would reopen a valid entry.
  expect(await engine.killJob({ id: job.jobRunId })).toMatchObject({
    status: 'DONE',
    reason: 'Killed',
  });
  expect(quarantined).toEqual(['retry is out of range']);
  expect(await entryOf(entry)).toMatchObject({
    status: 'QUARANTINED',
    currentJobRunId: null,
  });
});

it('an entry is released after its row is repaired, and not before', async () => {
  const { engine, jobs, sql } = bildad;
  const entry = await runAmongOthers('retry = 2147483647', SimpleJob, {});
  await expect(jobs.releaseQuarantined(entry)).rejects.toThrow(JobNotAvailableError);
  await sql(`UPDATE ${E} SET retry = 0`);
  expect(await jobs.releaseQuarantined(entry)).toMatchObject({
    status: 'AVAILABLE',
    scheduled: false,
    quarantinedAt: null,
    quarantineReason: null,
  });
  await expect(jobs.releaseQuarantined(entry)).rejects.toThrow(/not quarantined/);
  await engine.runJobEngine();
  expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
});

it('hundreds of malformed rows do not delay other entries', async () => {
  const { engine, sql } = bildad;
  const malformed = await engine.enqueueJobs(
    SimpleJob,
    Array.from({ length: 300 }, () => ({})),
    { priority: 0 },
  );
  const others = await engine.enqueueJobs(SimpleJob, [{}, {}]);
  await sql(`ALTER TABLE ${E} DROP CONSTRAINT job_queue_entries_well_formed`);
  await sql(`UPDATE ${E} SET retry = 2147483647 WHERE id <= $1`, [malformed.at(-1)!.id]);
  await engine.runJobEngine();
  for (const { jobRunIdentifier } of others)
    expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
    });
  expect(new Set(quarantined)).toEqual(new Set(['retry is out of range']));
});

it('an error of the database for every row quarantines nothing and is reported', async () => {
  const { engine, jobs, sql } = bildad;
  await sql(`CREATE FUNCTION bildad.no() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN RAISE check_violation USING MESSAGE = 'a trigger of the host'; END $$`);
  await sql(`CREATE TRIGGER no BEFORE INSERT ON bildad.job_runs
    FOR EACH ROW EXECUTE FUNCTION bildad.no()`);
  const entries = await engine.enqueueJobs(SimpleJob, [{}, {}, {}]);
  await expect(engine.runJobEngine()).rejects.toMatchObject({
    driverError: { code: '23514' },
  });
  await expect(engine.runJob(entries[0]!)).rejects.toMatchObject({
    driverError: { code: '23514' },
  });
  expect(await jobs.listQuarantinedJobs()).toEqual([]);
  await sql('DROP TRIGGER no ON bildad.job_runs');
  expect((await engine.runJobEngine()).start).toHaveLength(3);
  for (const { jobRunIdentifier } of entries)
    expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
      retry: 0,
    });
});

it('the database refuses malformed values', async () => {
  const { engine, sql } = bildad;
  await engine.enqueueJob(SimpleJob, {});
  for (const set of [
    'retry = 2147483647',
    `run_at = 'infinity'`,
    `claimed_by = 'me'`,
    `status = 'HELD'`,
  ])
    await expect(sql(`UPDATE ${E} SET ${set}`)).rejects.toMatchObject({
      driverError: { code: '23514' },
    });
});
