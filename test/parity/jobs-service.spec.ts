import {
  BildadConfigError,
  InvalidJobSchemaError,
  JobConfig,
  JobQueueEntry,
  JobRun,
  JobTemplate,
  JobTemplateInUseError,
  JobTemplateNotFoundError,
} from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// The read methods and templates of upstream's `Jobs`. Lists are pages that start at 0, and the
// config has the default page size. The database's clock decides whether a time has passed.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob, SimpleJob] });
});
beforeEach(() =>
  bildad.sql(
    `DELETE FROM bildad.job_queue_entries; DELETE FROM bildad.job_runs;
     DELETE FROM bildad.job_templates WHERE code NOT IN ('SIMPLE', 'GATED')`,
  ),
);
afterAll(() => bildad.close());

const identifiers = (rows: { jobRunIdentifier: string }[]) =>
  rows.map(({ jobRunIdentifier }) => jobRunIdentifier);
const codes = (templates: JobTemplate[]) => templates.map(({ code }) => code);

async function add(
  jobRunIdentifier: string,
  options: { priority?: number; delay?: string } = {},
): Promise<JobQueueEntry> {
  return bildad.engine.enqueueJob(SimpleJob, {}, { jobRunIdentifier, ...options });
}

/** Runs SIMPLE jobs one after another, in this order. */
async function runJobs(jobs: Record<string, 'well' | 'badly'>): Promise<void> {
  for (const [jobRunIdentifier, how] of Object.entries(jobs)) {
    await bildad.engine.enqueueAndRunJob(SimpleJob, how === 'badly' ? { fail: 'badly' } : {}, {
      jobRunIdentifier,
      maxRetries: 0,
    });
    await bildad.engine.waitForJob(jobRunIdentifier);
  }
}

describe('templates', () => {
  it('listJobTemplates lists active templates by default, or all, or inactive ones, by display order', async () => {
    const { jobs } = bildad;
    await jobs.createJobTemplate({ code: 'LAST', displayOrder: 9 });
    await jobs.createJobTemplate({ code: 'FIRST', displayOrder: -9 });
    await jobs.createJobTemplate({ code: 'OFF', active: false });
    expect(codes(await jobs.listJobTemplates())).toEqual(['FIRST', 'GATED', 'SIMPLE', 'LAST']);
    expect(codes(await jobs.listJobTemplates({ active: false }))).toEqual(['OFF']);
    expect(codes(await jobs.listJobTemplates({ active: 'all' }))).toEqual([
      'FIRST',
      'GATED',
      'SIMPLE',
      'OFF',
      'LAST',
    ]);
    expect(codes(await jobs.listJobTemplates({ active: 'all', page: 1, limit: 2 }))).toEqual([
      'SIMPLE',
      'OFF',
    ]);
  });

  it("createJobTemplate uses upstream's defaults or the given values", async () => {
    const { jobs } = bildad;
    const plain = await jobs.createJobTemplate({ code: 'PLAIN' });
    expect(plain).toBeInstanceOf(JobTemplate);
    expect(plain).toMatchObject({
      code: 'PLAIN',
      name: 'PLAIN',
      active: true,
      displayOrder: 0,
      defaultTimeoutMs: 3_600_000,
      defaultMaxRetries: 3,
      defaultPriority: 5,
      defaultBackoff: null,
      jobContextSchema: {},
    });
    const given = {
      code: 'FULL',
      name: 'All of it',
      active: false,
      displayOrder: 2,
      jobModuleName: 'Elsewhere',
      defaultTimeoutMs: 1000,
      defaultMaxRetries: 0,
      defaultPriority: 1,
      defaultBackoff: { type: 'fixed', delay: '1m' },
      jobContextSchema: { type: 'object', required: ['n'] },
    } as const;
    expect(await jobs.createJobTemplate(given as never)).toMatchObject(given);
    expect(await jobs.createJobTemplate({ code: 'NAMELESS', name: undefined })).toMatchObject({
      name: 'NAMELESS',
    });
  });

  it('createJobTemplate rejects an existing code and wrong fields', async () => {
    const { jobs } = bildad;
    for (const wrong of [
      { code: 'SIMPLE' },
      { code: '' },
      {},
      { code: 'X', defaultMaxRetries: -1 },
      { code: 'X', defaultTimeoutMs: 0 },
      { code: 'X', defaultBackoff: 'sometimes' },
      { code: 'X', declared: {} },
    ])
      await expect(
        jobs.createJobTemplate(wrong as never),
        JSON.stringify(wrong),
      ).rejects.toBeInstanceOf(BildadConfigError);
    await expect(
      jobs.createJobTemplate({
        code: 'X',
        jobContextSchema: { type: 'objekt' },
      }),
    ).rejects.toBeInstanceOf(InvalidJobSchemaError);
    expect(await jobs.listJobTemplates({ active: 'all' })).toHaveLength(2);
  });

  it('updateJobTemplate changes the given fields, and the next enqueue uses them', async () => {
    const { engine, jobs } = bildad;
    const template = await jobs.createJobTemplate({
      code: 'CHANGED',
      defaultBackoff: 'none',
    });
    await engine.enqueueJob('CHANGED', {});
    expect(
      await jobs.updateJobTemplate(template, {
        defaultPriority: 1,
        defaultMaxRetries: 8,
        defaultBackoff: null,
        jobContextSchema: { type: 'object', required: ['n'] },
      }),
    ).toMatchObject({
      code: 'CHANGED',
      name: 'CHANGED',
      defaultPriority: 1,
      defaultBackoff: null,
    });
    expect(await engine.enqueueJob('CHANGED', { n: 1 })).toMatchObject({
      priority: 1,
      maxRetries: 8,
    });
    await expect(engine.enqueueJob('CHANGED', {})).rejects.toMatchObject({
      violations: [{ path: 'n' }],
    });
  });

  it('a change by an operator survives a deploy', async () => {
    const { jobs, database } = bildad;
    const simple = (await jobs.listJobTemplates()).find(({ code }) => code === 'SIMPLE')!;
    await jobs.updateJobTemplate(simple, { defaultMaxRetries: 9 });
    const deployed = await bootApp({ database, providers: [SimpleJob] });
    expect(
      (await deployed.jobs.listJobTemplates()).find(({ code }) => code === 'SIMPLE'),
    ).toMatchObject({ defaultMaxRetries: 9 });
    await jobs.updateJobTemplate(simple, { defaultMaxRetries: 3 });
    await deployed.close();
  });

  it('updateJobTemplate rejects an unknown template and fields that cannot be changed', async () => {
    const { jobs } = bildad;
    await expect(jobs.updateJobTemplate({ id: '0' }, { active: false })).rejects.toBeInstanceOf(
      JobTemplateNotFoundError,
    );
    const template = await jobs.createJobTemplate({ code: 'FIXED' });
    for (const wrong of [{ active: 'no' }, { id: '1' }, { code: 'OTHER' }])
      await expect(
        jobs.updateJobTemplate(template, wrong as never),
        JSON.stringify(wrong),
      ).rejects.toBeInstanceOf(BildadConfigError);
  });

  it('deleteJobTemplate deletes only a template without entries and runs', async () => {
    const { engine, jobs } = bildad;
    const template = await jobs.createJobTemplate({ code: 'UNUSED' });
    const entry = await engine.enqueueJob('UNUSED', {});
    await expect(jobs.deleteJobTemplate(template)).rejects.toBeInstanceOf(JobTemplateInUseError);
    await engine.removeJobFromQueue(entry);
    await jobs.deleteJobTemplate(template);
    await expect(jobs.deleteJobTemplate(template)).rejects.toBeInstanceOf(JobTemplateNotFoundError);
    await expect(engine.enqueueJob('UNUSED', {})).rejects.toBeInstanceOf(JobTemplateNotFoundError);
    await runJobs({ once: 'well' });
    const simple = (await jobs.listJobTemplates()).find(({ code }) => code === 'SIMPLE')!;
    await expect(jobs.deleteJobTemplate(simple)).rejects.toBeInstanceOf(JobTemplateInUseError);
  });
});

describe('runs', () => {
  it('listJobRunsForIdentifier lists the runs of an identifier, the oldest first', async () => {
    const { engine, jobs } = bildad;
    const entry = await engine.enqueueJob(SimpleJob, { fail: 'twice' }, { maxRetries: 1 });
    for (let run = 0; run < 2; run++) {
      const finished = bildad.next('run.finished');
      await engine.runJob(entry);
      await finished;
    }
    const runs = await jobs.listJobRunsForIdentifier(entry.jobRunIdentifier);
    expect(runs).toMatchObject([{ retry: 0 }, { retry: 1 }]);
    expect(runs[0]).toBeInstanceOf(JobRun);
    expect(await jobs.listJobRunsForIdentifier('no such')).toEqual([]);
  });

  it('the lists contain the running, the timed out and the expired runs', async () => {
    const { jobs } = bildad;
    await add('a');
    await add('b');
    // Runs of a lost node: no process kills or renews them.
    await bildad.sql(
      `INSERT INTO bildad.job_runs (job_template_id, job_queue_entry_id, job_run_identifier, retry, job_process_name,
         node_id, job_context, available_at, timeout_at, expires_at)
       SELECT job_template_id, id, job_run_identifier, 0, '', 'gone', '{}', now(),
         now() + CASE job_run_identifier WHEN 'a' THEN -1 ELSE 1 END * interval '1 hour',
         now() + CASE job_run_identifier WHEN 'a' THEN 1 ELSE -1 END * interval '1 hour'
       FROM bildad.job_queue_entries ORDER BY id`,
    );
    await runJobs({ done: 'well' });
    await bildad.sql(
      `UPDATE bildad.job_runs SET timeout_at = now(), expires_at = now() WHERE status = 'DONE'`,
    );
    expect(identifiers(await jobs.listRunningJobRuns())).toEqual(['a', 'b']);
    expect(identifiers(await jobs.listJobRunsToKill())).toEqual(['a']);
    expect(identifiers(await jobs.listExpiredJobs())).toEqual(['b']);
    expect(identifiers(await jobs.listRunningJobRuns({ page: 1, limit: 1 }))).toEqual(['b']);
  });

  it('runs are listed by result, newest first, and counted', async () => {
    const { jobs } = bildad;
    await runJobs({ one: 'well', two: 'badly', three: 'well' });
    expect(identifiers(await jobs.listJobRunsForResult('SUCCEEDED'))).toEqual(['three', 'one']);
    expect(identifiers(await jobs.listJobRunsForResult('FAILED'))).toEqual(['two']);
    expect(
      identifiers(await jobs.listJobRunsForResult('SUCCEEDED', { page: 1, limit: 1 })),
    ).toEqual(['one']);
    await expect(jobs.listJobRunsForResult('GOOD' as never)).rejects.toBeInstanceOf(
      BildadConfigError,
    );
    expect(identifiers(await jobs.listAllJobRuns())).toEqual(['three', 'two', 'one']);
    expect(await jobs.getNumberOfJobRuns()).toBe(3);
  });
});

describe('queue', () => {
  it('getJobQueueEntryForIdentifier finds the entry of an identifier', async () => {
    const { jobs } = bildad;
    const entry = await add('wanted');
    const found = await jobs.getJobQueueEntryForIdentifier('wanted');
    expect(found).toBeInstanceOf(JobQueueEntry);
    expect(found).toEqual(entry);
    expect(await jobs.getJobQueueEntryForIdentifier('unknown')).toBeNull();
  });

  it('queue entries are listed by status and counted', async () => {
    const { engine, jobs } = bildad;
    await add('usual');
    await add('urgent', { priority: 1 });
    await add('tomorrow', { delay: '1d', priority: 0 });
    const run = await engine.enqueueAndRunJob(
      GatedJob,
      {},
      { jobRunIdentifier: 'running', priority: 2 },
    );
    const { door } = await GatedJob.arrival();
    expect(identifiers(await jobs.listJobsToRunInTheQueue())).toEqual(['urgent', 'usual']);
    expect(identifiers(await jobs.listRunningJobsInTheQueue())).toEqual(['running']);
    expect(identifiers(await jobs.listJobsForStatusInTheQueue('AVAILABLE'))).toEqual([
      'tomorrow',
      'urgent',
      'usual',
    ]);
    expect(identifiers(await jobs.listJobsForStatusInTheQueue('RUNNING'))).toEqual(['running']);
    await expect(jobs.listJobsForStatusInTheQueue('WAITING' as never)).rejects.toBeInstanceOf(
      BildadConfigError,
    );
    expect(identifiers(await jobs.listAllJobsInTheQueue())).toEqual([
      'tomorrow',
      'urgent',
      'running',
      'usual',
    ]);
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(4);
    const done = engine.waitForJob(run.jobRunIdentifier);
    door.open(null);
    await done;
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(3);
  });

  it('the position in the queue is 1 for the next job and null for a job that is not queued', async () => {
    const { engine, jobs } = bildad;
    const position = (identifier: string) => jobs.getQueuePositionForJobRunIdentifier(identifier);
    const first = await add('first');
    await add('second');
    expect(await position('first')).toBe(1);
    expect(await position('second')).toBe(2);
    await add('urgent', { priority: 1 });
    await add('tomorrow', { delay: '1d', priority: 0 });
    expect(await position('urgent')).toBe(1);
    expect(await position('first')).toBe(2);
    expect(await position('second')).toBe(3);
    expect(await position('unknown')).toBeNull();
    await engine.runJob(first);
    await engine.waitForJob('first');
    expect(await position('first')).toBeNull();
    expect(await position('second')).toBe(2);
    const running = await engine.enqueueAndRunJob(GatedJob, {});
    const { door } = await GatedJob.arrival();
    expect(await position(running.jobRunIdentifier)).toBeNull();
    const done = engine.waitForJob(running.jobRunIdentifier);
    door.open(null);
    await done;
  });
});

describe('pages', () => {
  it('pages start at 0 and have the configured length by default', async () => {
    const { engine, jobs } = bildad;
    const all = identifiers(
      await engine.enqueueJobs(
        SimpleJob,
        Array.from({ length: 30 }, () => ({})),
      ),
    );
    const page = async (of?: { page?: number; limit?: number }) =>
      identifiers(await jobs.listAllJobsInTheQueue(of));
    expect(await page()).toEqual(all.slice(0, 25));
    expect(await page({ page: 0 })).toEqual(all.slice(0, 25));
    expect(await page({ page: 1 })).toEqual(all.slice(25));
    expect(await page({ page: 2 })).toEqual([]);
    expect(await page({ page: 2, limit: 7 })).toEqual(all.slice(14, 21));
    await jobs.updateJobConfig({ defaultPageSize: 10 });
    expect(await page({ page: 2 })).toEqual(all.slice(20));
    await jobs.updateJobConfig({ defaultPageSize: 25 });
  });

  it.each([
    { page: -1 },
    { page: 0.5 },
    { page: '1' },
    { limit: 0 },
    { limit: 1001 },
    { limit: NaN },
  ])('every list rejects the page %j', async (page) => {
    const { jobs } = bildad;
    for (const list of [
      () => jobs.listJobTemplates(page as never),
      () => jobs.listJobRunsToKill(page as never),
      () => jobs.listExpiredJobs(page as never),
      () => jobs.listJobRunsForResult('FAILED', page as never),
      () => jobs.listRunningJobRuns(page as never),
      () => jobs.listAllJobRuns(page as never),
      () => jobs.listJobsToRunInTheQueue(page as never),
      () => jobs.listRunningJobsInTheQueue(page as never),
      () => jobs.listJobsForStatusInTheQueue('AVAILABLE', page as never),
      () => jobs.listAllJobsInTheQueue(page as never),
    ])
      await expect(list()).rejects.toBeInstanceOf(BildadConfigError);
  });
});

describe('config', () => {
  it("the config has upstream's page size and our defaults, with one row per engine name", async () => {
    const { jobs, database } = bildad;
    const config = await jobs.getJobConfig();
    expect(config).toBeInstanceOf(JobConfig);
    expect(config).toMatchObject({
      name: 'default',
      defaultPageSize: 25,
      batchSize: 1000,
      leaseMs: 15_000,
    });
    const reports = await bootApp({ database, options: { name: 'reports' } });
    await reports.jobs.updateJobConfig({ defaultPageSize: 3 });
    expect(await reports.jobs.getJobConfig()).toMatchObject({
      name: 'reports',
      defaultPageSize: 3,
    });
    expect(await jobs.getJobConfig()).toMatchObject({ defaultPageSize: 25 });
    await reports.close();
  });

  it('updateJobConfig changes the given fields and restores a deleted row', async () => {
    const { jobs } = bildad;
    expect(await jobs.updateJobConfig({ batchSize: 7 })).toMatchObject({
      batchSize: 7,
      defaultPageSize: 25,
    });
    await bildad.sql('DELETE FROM bildad.job_configs');
    expect(await jobs.getJobConfig()).toMatchObject({ batchSize: 1000 });
  });

  it.each([{ defaultPageSize: 0 }, { batchSize: 1.5 }, { leaseMs: 999 }, { guardHolder: 'me' }])(
    'updateJobConfig rejects %j',
    async (changes) => {
      const { jobs } = bildad;
      const before = await jobs.getJobConfig();
      await expect(jobs.updateJobConfig(changes as never)).rejects.toBeInstanceOf(
        BildadConfigError,
      );
      expect(await jobs.getJobConfig()).toEqual(before);
    },
  );
});
