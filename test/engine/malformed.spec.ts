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

// Rows that a hand in the database has spoiled, at the head of the queue: their neighbours run as if they were not there.

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

/** As it may be in a table that was made before the constraints, or that somebody took them from. */
async function spoil(entry: JobQueueEntry, set: string): Promise<void> {
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

/** Five neighbours and the spoilt one in the middle, more urgent than all of them but one; nothing may fail. */
async function among(
  set: string,
  job: typeof SimpleJob | typeof NamedJob,
  context: object,
): Promise<JobQueueEntry> {
  const { engine } = bildad;
  const first = await engine.enqueueJob(SimpleJob, {}, { priority: -1e6 });
  const spoilt = await engine.enqueueJob(job as typeof SimpleJob, context, {
    priority: 0,
  });
  const others = await engine.enqueueJobs(SimpleJob, [{}, {}, {}, {}]);
  await spoil(spoilt, set);
  // Twice: what was reopened, or given another number, is claimed by the second.
  await engine.runJobEngine();
  await engine.runJobEngine();
  for (const { jobRunIdentifier } of [first, ...others])
    expect(await engine.waitForJob(jobRunIdentifier, { timeout: '5s' })).toMatchObject({
      result: 'SUCCEEDED',
      retry: 0,
    });
  return spoilt;
}

const claimed = (rest: string) => `status = 'RUNNING', claimed_by = 'gone', retry = 1, ${rest}`;

describe('is put aside', () => {
  it.each<[what: string, set: string, reason: string]>([
    ['a retry that cannot be counted on', 'retry = 2147483647', 'retry is out of range'],
    [
      'uncounted runs by the billion',
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
      'an identifier that the history has no room for',
      // What does not compress.
      `job_run_identifier = (SELECT left(string_agg(md5(n::text), ''), 2690) FROM generate_series(1, 90) n)`,
      'its identifier is too long',
    ],
    ['a status that is none', `status = 'HELD'`, 'its status is unknown'],
    ['a template that is gone', 'job_template_id = 4711', 'its template is gone'],
    [
      'half a claim',
      claimed('claimed_at = now(), claim_expires_at = NULL'),
      'only a part of claimed_by, claimed_at and claim_expires_at is set',
    ],
    [
      'a claim that nobody will miss',
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
    const spoilt = await among(set, SimpleJob, {});
    const { jobs, engine } = bildad;
    // What nobody claims is found by the look at all entries, once a lease.
    await expect
      .poll(async () => {
        await engine.runJobEngine();
        return (await jobs.listQuarantinedJobs()).map(({ id }) => id);
      })
      .toEqual([spoilt.id]);
    const [aside] = await jobs.listQuarantinedJobs();
    expect(aside).toMatchObject({
      status: 'QUARANTINED',
      quarantineReason: reason,
      quarantinedAt: expect.any(Date) as Date,
    });
    expect(quarantined).toEqual([reason]);
    expect(errors).toEqual([]);
    await expect(engine.runJob(aside!)).rejects.toThrow(/quarantined/);
    expect(await engine.cancelJob(aside!)).toBeNull();
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
  });
});

describe('runs all the same', () => {
  it.each<[what: string, set: string]>([
    ['a timeout beyond all time', 'timeout_ms = 9223372036854775807'],
    ['retries without end', 'max_retries = 2147483647'],
    ['the most urgent there is', 'priority = -2147483648'],
    ['a current run that is gone', 'current_job_run_id = 4711'],
    ['RUNNING, without a run', `status = 'RUNNING', current_job_run_id = NULL`],
    ['RUNNING, its run gone', `status = 'RUNNING', current_job_run_id = 4711`],
    ['due before Christ', `run_at = '4713-01-01 BC'`],
    ['due in the year 200000, and not scheduled', `run_at = '200000-01-01'`],
    ['a backoff that is text', `backoff = '"soon"'`],
    ['more runs uncounted than there were', 'uncounted_runs = 1000'],
  ])('%s', async (_what, set) => {
    await bildad.sql('UPDATE bildad.job_configs SET lease_ms = 1000');
    const spoilt = await among(set, SimpleJob, {});
    await expect
      .poll(async () => {
        await bildad.engine.runJobEngine();
        return runsOf(spoilt);
      })
      .toMatchObject([{ result: 'SUCCEEDED' }]);
    expect(errors).toEqual([]);
    expect(quarantined).toEqual([]);
  });
});

describe('fails alone', () => {
  it.each<[what: string, set: string]>([
    ['no object', `job_context = '"text"'`],
    ['a list', `job_context = '[]'`],
    ['JSON null', `job_context = 'null'`],
    ['other keys', `job_context = '{"unknown": 1}'`],
    [
      'deeper than a stack',
      `job_context = (repeat('{"a":', 1000) || '1' || repeat('}', 1000))::jsonb`,
    ],
  ])('%s', async (_what, set) => {
    const spoilt = await among(set, NamedJob, { name: 'x' });
    expect(
      await bildad.engine.waitForJob(spoilt.jobRunIdentifier, {
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
    const spoilt = await among(`backoff = '${backoff}'`, SimpleJob, {
      fail: 'as always',
    });
    await expect
      .poll(() => runsOf(spoilt))
      .toMatchObject([{ status: 'DONE', reason: 'as always' }]);
    expect(await entryOf(spoilt)).toMatchObject({
      status: 'AVAILABLE',
      scheduled: true,
    });
  });

  it('whose template has a backoff that is none', async () => {
    const { engine, sql } = bildad;
    await sql(
      `UPDATE bildad.job_templates SET default_backoff = '{"jitter": []}' WHERE code = 'SIMPLE'`,
    );
    const entry = await engine.enqueueJob(SimpleJob, { fail: 'so' });
    await engine.runJobEngine();
    await expect.poll(() => runsOf(entry)).toMatchObject([{ status: 'DONE' }]);
  });
});

it('a run ends though its entry cannot be written', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  await engine.runJobEngine();
  const { job } = await GatedJob.arrival();
  await spoil(entry, 'retry = 2147483647');
  // It would be reopened, if it could.
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

it('an entry is released when its row is mended, and not before', async () => {
  const { engine, jobs, sql } = bildad;
  const entry = await among('retry = 2147483647', SimpleJob, {});
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

it('hundreds of spoilt rows hold up nobody', async () => {
  const { engine, sql } = bildad;
  const spoilt = await engine.enqueueJobs(
    SimpleJob,
    Array.from({ length: 300 }, () => ({})),
    { priority: 0 },
  );
  const others = await engine.enqueueJobs(SimpleJob, [{}, {}]);
  await sql(`ALTER TABLE ${E} DROP CONSTRAINT job_queue_entries_well_formed`);
  await sql(`UPDATE ${E} SET retry = 2147483647 WHERE id <= $1`, [spoilt.at(-1)!.id]);
  await engine.runJobEngine();
  for (const { jobRunIdentifier } of others)
    expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
      result: 'SUCCEEDED',
    });
  expect(new Set(quarantined)).toEqual(new Set(['retry is out of range']));
});

it('what the database refuses for every row empties no queue, and is told', async () => {
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

it('the rows are refused from now on', async () => {
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
