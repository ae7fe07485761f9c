import { inspect } from 'node:util';
import { IsEmail, IsString, MaxLength } from 'class-validator';
import {
  BildadConfigError,
  BildadJob,
  DuplicateJobError,
  InvalidJobContextError,
  JobTemplateInactiveError,
  JobTemplateNotFoundError,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// enqueue_job: adds an AVAILABLE entry. Jobs run by priority (lower first), then by age. Options:
// identifier, priority, timeout, max retries. Deviation from upstream: a context that violates the
// template's schema is rejected at enqueue.

class Mail {
  @IsEmail() to!: string;
  @IsString() @MaxLength(5) subject!: string;
}

@BildadJob({ code: 'MAIL', context: Mail })
class MailJob implements JobHandler<Mail> {
  runJob(): void {}
}

@BildadJob({
  code: 'COUNT',
  context: {
    type: 'object',
    required: ['n'],
    properties: { n: { type: 'integer' } },
  },
})
class CountJob implements JobHandler<{ n: number }> {
  runJob(): void {}
}

@BildadJob({ code: 'OWN', timeout: '5m', maxRetries: 7, priority: 2 })
class OwnDefaultsJob implements JobHandler<object> {
  runJob(): void {}
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({
    providers: [SimpleJob, GatedJob, MailJob, CountJob, OwnDefaultsJob],
  });
});
afterEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries'));
afterAll(() => bildad.close());

it("enqueueJob adds an AVAILABLE entry with upstream's defaults and runs nothing", async () => {
  const { engine, jobs } = bildad;
  const entry = await engine.enqueueJob(SimpleJob, { say: [1, 'two', null] });
  expect(entry).toMatchObject({
    status: 'AVAILABLE',
    priority: 5,
    timeoutMs: 60 * 60_000,
    maxRetries: 3,
    jobContext: { say: [1, 'two', null] },
    retry: 0,
    currentJobRunId: null,
  });
  expect(entry.jobRunIdentifier).toMatch(/^[0-9a-f-]{36}$/);
  expect(await jobs.getNumberOfJobRuns()).toBe(0);
  expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toEqual(entry);
});

it('enqueueJob accepts identifier, priority, timeout and max retries', async () => {
  const { engine } = bildad;
  expect(
    await engine.enqueueJob(
      SimpleJob,
      {},
      {
        jobRunIdentifier: 'invoice 7',
        priority: -1,
        timeout: '90s',
        maxRetries: 0,
      },
    ),
  ).toMatchObject({
    jobRunIdentifier: 'invoice 7',
    priority: -1,
    timeoutMs: 90_000,
    maxRetries: 0,
  });
  expect(await engine.enqueueJob(SimpleJob, {}, { timeoutInMinutes: 1.5 })).toMatchObject({
    timeoutMs: 90_000,
  });
});

it("an option overrides the template's default", async () => {
  const { engine } = bildad;
  expect(await engine.enqueueJob(OwnDefaultsJob, {})).toMatchObject({
    timeoutMs: 300_000,
    maxRetries: 7,
    priority: 2,
  });
  expect(await engine.enqueueJob(OwnDefaultsJob, {}, { maxRetries: 0, priority: 0 })).toMatchObject(
    { timeoutMs: 300_000, maxRetries: 0, priority: 0 },
  );
});

it('enqueueJob accepts a class, a code or a template', async () => {
  const { engine, jobs } = bildad;
  const template = (await jobs.listJobTemplates()).find(({ code }) => code === 'SIMPLE')!;
  for (const job of [SimpleJob, 'SIMPLE', template])
    expect(await engine.enqueueJob(job, {})).toMatchObject({
      jobTemplateId: template.id,
    });
});

it('jobs start by priority, lower first, then by age', async () => {
  const { engine } = bildad;
  const add = (jobRunIdentifier: string, priority?: number) =>
    engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier, priority });
  await add('order: late', 9);
  await add('order: second');
  await add('order: third', 5);
  await add('order: first', 1);
  const { start } = await engine.runJobEngine();
  expect(start.map((outcome) => outcome.ok && outcome.jobRun.jobRunIdentifier)).toEqual([
    'order: first',
    'order: second',
    'order: third',
    'order: late',
  ]);
  for (const name of ['first', 'second', 'third', 'late'])
    await engine.waitForJob(`order: ${name}`);
});

it('enqueueJob rejects a context that violates its class, lists the violations and enqueues nothing', async () => {
  const { engine, jobs } = bildad;
  const error = await engine
    .enqueueJob(MailJob, { to: 'nobody', subject: 'too long' })
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InvalidJobContextError);
  expect((error as InvalidJobContextError).violations.map(({ path }) => path)).toEqual([
    'to',
    'subject',
  ]);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

it('enqueueJob rejects a context that violates its JSON Schema, by class and by code', async () => {
  const { engine, jobs } = bildad;
  for (const job of [CountJob, 'COUNT'] as const) {
    await expect(engine.enqueueJob(job as string, { n: 1.5 })).rejects.toMatchObject({
      violations: [{ path: 'n' }],
    });
    await expect(engine.enqueueJob(job as string, {})).rejects.toMatchObject({
      code: 'INVALID_JOB_CONTEXT',
      violations: [{ path: 'n' }],
    });
  }
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

it('enqueueJob rejects values that JSON would change silently', async () => {
  const { engine, jobs } = bildad;
  for (const say of [NaN, 1n, new Map(), 'a\0b', '\ud800', new Date()])
    await expect(engine.enqueueJob(SimpleJob, { say }), inspect(say)).rejects.toMatchObject({
      violations: [{ path: 'say' }],
    });
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

it('enqueueJob rejects an identifier that is in the queue or in the history', async () => {
  const { engine, jobs } = bildad;
  const taken = { jobRunIdentifier: 'taken' };
  await engine.enqueueJob(SimpleJob, {}, taken);
  const again = () => engine.enqueueJob(SimpleJob, {}, taken);
  await expect(again()).rejects.toBeInstanceOf(DuplicateJobError);
  await engine.runJobEngine();
  await engine.waitForJob('taken');
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(0);
  await expect(again()).rejects.toBeInstanceOf(DuplicateJobError);
});

it('one of ten concurrent callers with the same identifier enqueues', async () => {
  const { engine, jobs } = bildad;
  const settled = await Promise.allSettled(
    Array.from({ length: 10 }, () =>
      engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier: 'one of ten' }),
    ),
  );
  const refused = settled.filter(({ status }) => status === 'rejected');
  expect(refused.map(({ reason }: any) => (reason as Error).constructor)).toEqual(
    Array(9).fill(DuplicateJobError),
  );
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(1);
});

it('enqueueJob rejects an unknown and an inactive template', async () => {
  const { engine, jobs } = bildad;
  await expect(engine.enqueueJob('NO_SUCH', {})).rejects.toBeInstanceOf(JobTemplateNotFoundError);
  const template = await jobs.createJobTemplate({ code: 'OFF' });
  await engine.enqueueJob('OFF', {});
  // The change is made with SQL: another process made it, and this process may still have the
  // template in its cache.
  await bildad.sql('UPDATE bildad.job_templates SET active = false WHERE id = $1', [template.id]);
  await expect(engine.enqueueJob('OFF', {})).rejects.toBeInstanceOf(JobTemplateInactiveError);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(1);
});

it.each([
  ['jobRunIdentifier', ''],
  ['jobRunIdentifier', 'x'.repeat(501)],
  ['priority', 1.5],
  ['timeout', 0],
  ['timeout', 'soon'],
  ['timeoutInMinutes', '5'],
  ['maxRetries', -1],
  ['backoff', { type: 'random' }],
  ['backoff', () => 1],
  ['runAt', 'tomorrow'],
  ['delay', -1],
  ['retries', 3],
])('enqueueJob rejects the option %s: %j and names it', async (option, value) => {
  const refusal = bildad.engine
    .enqueueJob(SimpleJob, {}, { [option]: value })
    .catch((error: unknown) => error);
  expect(await refusal).toBeInstanceOf(BildadConfigError);
  expect(((await refusal) as Error).message).toContain(option);
  expect(await bildad.jobs.getNumberOfJobsInTheQueue()).toBe(0);
});

it('enqueueJob joins the transaction of its caller, and a rollback removes the entry', async () => {
  const { engine, jobs, dataSource } = bildad;
  const enqueue = (jobRunIdentifier: string, fail: boolean) =>
    dataSource.transaction(async (manager) => {
      await engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier, manager });
      if (fail) throw new Error('rolled back');
    });
  await expect(enqueue('undone', true)).rejects.toThrow('rolled back');
  await enqueue('kept', false);
  expect(await jobs.listAllJobsInTheQueue()).toMatchObject([{ jobRunIdentifier: 'kept' }]);
});

it('a job with runAt or delay waits until it is due', async () => {
  const { engine } = bildad;
  const later = await engine.enqueueJob(SimpleJob, {}, { runAt: new Date(Date.now() + 60_000) });
  const delayed = await engine.enqueueJob(SimpleJob, {}, { delay: '1h' });
  expect((await engine.runJobEngine()).start).toEqual([]);
  await bildad.sql(
    `UPDATE bildad.job_queue_entries SET run_at = now() - interval '1 s' WHERE id = $1`,
    [delayed.id],
  );
  expect((await engine.runJobEngine()).start).toMatchObject([
    { ok: true, jobRun: { jobRunIdentifier: delayed.jobRunIdentifier } },
  ]);
  await engine.waitForJob(delayed.jobRunIdentifier);
  expect(later.scheduled).toBe(true);
});
