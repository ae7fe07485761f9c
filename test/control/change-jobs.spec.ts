import { IsInt } from 'class-validator';
import {
  BildadConfigError,
  BildadJob,
  InvalidJobContextError,
  JobNotAvailableError,
  type JobFilter,
  type JobHandler,
} from 'nestjs-bildad';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// Waiting jobs can be changed, one at a time or all that match a filter. Running and ended jobs cannot.

class CountedContext {
  @IsInt() count!: number;
}

@BildadJob({ code: 'COUNTED', context: CountedContext, maxRetries: 0 })
class CountedJob implements JobHandler<CountedContext> {
  runJob({ count }: CountedContext): number {
    if (count < 0) throw new Error('negative');
    return count;
  }
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [CountedJob, SimpleJob, GatedJob] });
});
afterAll(() => bildad.close());
beforeEach(() => bildad.sql('DELETE FROM bildad.job_queue_entries WHERE claimed_by IS NULL'));

async function running() {
  const run = await bildad.engine.enqueueAndRunJob(GatedJob, {});
  const { door } = await GatedJob.arrival();
  const entry = (await bildad.jobs.getJobQueueEntryForIdentifier(run.jobRunIdentifier))!;
  return {
    run,
    entry,
    end: async () => {
      door.open(1);
      await bildad.engine.waitForJob(run.jobRunIdentifier);
    },
  };
}

describe('rescheduleJob', () => {
  it('makes the job due at another time', async () => {
    const { engine } = bildad;
    const entry = await engine.enqueueJob(SimpleJob, {});
    const runAt = new Date(Date.now() + 3_600_000);
    expect(await engine.rescheduleJob(entry, runAt)).toMatchObject({
      runAt,
      scheduled: true,
    });
    expect((await engine.runJobEngine()).start).toEqual([]);
    const later = await engine.rescheduleJob(entry, '2h');
    expect(later.runAt.getTime()).toBeGreaterThan(runAt.getTime());
    expect(await engine.rescheduleJob(entry, 0)).toMatchObject({
      scheduled: false,
      status: 'AVAILABLE',
    });
    expect((await engine.runJobEngine()).start).toHaveLength(1);
    await engine.waitForJob(entry.jobRunIdentifier);
    await expect(engine.rescheduleJob(entry, '1h')).rejects.toThrow(JobNotAvailableError);
  });

  it.each([['soon'], [new Date(NaN)], [-1], [undefined]])('refuses the time %s', async (when) => {
    const entry = await bildad.engine.enqueueJob(SimpleJob, {});
    const error: unknown = await bildad.engine
      .rescheduleJob(entry, when as string)
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error).toMatchObject({ field: 'when', got: when });
  });
});

describe('updateJob', () => {
  it('changes the given fields only', async () => {
    const { engine } = bildad;
    const entry = await engine.enqueueJob(CountedJob, { count: 1 });
    const changed = await engine.updateJob(entry, {
      context: { count: 2 },
      priority: 1,
      timeout: '5m',
      maxRetries: 7,
      backoff: { type: 'fixed', delay: '1s' },
    });
    expect(changed).toMatchObject({
      id: entry.id,
      jobRunIdentifier: entry.jobRunIdentifier,
      jobContext: { count: 2 },
      priority: 1,
      timeoutMs: 300_000,
      maxRetries: 7,
      backoff: { type: 'fixed', delay: '1s' },
      runAt: entry.runAt,
    });
    expect(await engine.updateJob(entry, { backoff: null })).toMatchObject({
      jobContext: { count: 2 },
      priority: 1,
      timeoutMs: 300_000,
      maxRetries: 7,
      backoff: null,
    });
    await engine.runJobEngine();
    expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      output: 2,
    });
  });

  it('an invalid context or option changes nothing', async () => {
    const { engine, jobs } = bildad;
    const entry = await engine.enqueueJob(CountedJob, { count: 1 });
    const update = (changes: object) => engine.updateJob(entry, changes);
    await expect(update({ priority: 1, context: { count: 'many' } })).rejects.toThrow(
      InvalidJobContextError,
    );
    await expect(update({ priority: 1.5 })).rejects.toThrow(/^priority must be an integer/);
    await expect(update({ prio: 1 })).rejects.toThrow(
      /^prio is not an option: did you mean priority\?/,
    );
    await expect(update({ delay: 1, runAt: new Date() })).rejects.toThrow(
      /^runAt cannot be combined with delay/,
    );
    expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
      priority: 5,
      jobContext: { count: 1 },
    });
  });

  it('a running or ended job is not changed', async () => {
    const { engine, jobs } = bildad;
    const { entry, end } = await running();
    for (const changes of [{ priority: 1 }, { context: {} }])
      await expect(engine.updateJob(entry, changes)).rejects.toMatchObject({
        code: 'JOB_NOT_AVAILABLE',
        jobRunIdentifier: entry.jobRunIdentifier,
        why: expect.stringContaining('RUNNING') as string,
      });
    await expect(engine.rescheduleJob(entry, '1h')).rejects.toThrow(JobNotAvailableError);
    expect(await jobs.getJobQueueEntryForIdentifier(entry.jobRunIdentifier)).toMatchObject({
      priority: 5,
    });
    await end();
    await expect(engine.updateJob(entry, { priority: 1 })).rejects.toThrow(
      /it is not in the queue/,
    );
  });

  it('in a race of a claim and a change, the job runs with the change if the change succeeded', async () => {
    const { engine } = bildad;
    const races = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const entry = await engine.enqueueJob(CountedJob, { count: 1 });
        const [change] = await Promise.allSettled([
          engine.updateJob(entry, { context: { count: 2 } }),
          engine.runJob(entry),
        ]);
        const { output } = await engine.waitForJob(entry.jobRunIdentifier);
        return { changed: change.status === 'fulfilled', output };
      }),
    );
    for (const { changed, output } of races) expect(output).toBe(changed ? 2 : 1);
  });
});

describe('retryJob', () => {
  it('enqueues the job with another context and does not change the history', async () => {
    const { engine, jobs } = bildad;
    const run = await engine.enqueueAndRunJob(CountedJob, { count: -1 });
    const failed = await engine.waitForJob(run.jobRunIdentifier);
    const entry = await engine.retryJob(failed, { context: { count: 3 } });
    expect(entry).toMatchObject({
      retryOfJobRunId: run.id,
      jobContext: { count: 3 },
    });
    await engine.runJobEngine();
    expect(await engine.waitForJob(entry.jobRunIdentifier)).toMatchObject({
      output: 3,
    });
    expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toEqual([
      { ...failed, retriedAt: expect.any(Date) as Date },
    ]);
    await expect(engine.retryJob(failed, { context: { count: 'x' } })).rejects.toThrow(
      InvalidJobContextError,
    );
  });
});

describe('bulk operations', () => {
  const counted = (count: number, options = {}) =>
    bildad.engine.enqueueJobs(
      CountedJob,
      Array.from({ length: count }, () => ({ count: 1 })),
      options,
    );

  it('cancelJobs deletes matching waiting jobs and stops matching running ones', async () => {
    const { engine, jobs } = bildad;
    await counted(2_300);
    await counted(5, { priority: 9 });
    const { run } = await running();
    expect(await engine.cancelJobs({ job: CountedJob, priority: { max: 5 } })).toEqual({
      removed: 2_300,
      stopped: 0,
    });
    expect(await jobs.getNumberOfJobsInTheQueue()).toBe(6);
    expect(await engine.cancelJobs({ job: 'GATED' })).toEqual({
      removed: 0,
      stopped: 1,
    });
    expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
      reason: 'Cancelled',
    });
    expect(await engine.cancelJobs({ olderThan: '1h', status: 'AVAILABLE' })).toEqual({
      removed: 0,
      stopped: 0,
    });
    expect(await engine.cancelJobs({ newerThan: '1h' })).toEqual({
      removed: 5,
      stopped: 0,
    });
  });

  it('rescheduleJobs moves AVAILABLE jobs only', async () => {
    const { engine, jobs } = bildad;
    const [one, two] = await counted(3);
    const { end } = await running();
    const chosen = {
      jobRunIdentifiers: [one!.jobRunIdentifier, two!.jobRunIdentifier],
    };
    expect(await engine.rescheduleJobs(chosen, '1h')).toEqual({
      rescheduled: 2,
    });
    expect(await jobs.getJobQueueEntryForIdentifier(one!.jobRunIdentifier)).toMatchObject({
      scheduled: true,
    });
    expect(await engine.rescheduleJobs({ newerThan: '1h' }, 0)).toEqual({
      rescheduled: 3,
    });
    expect(await engine.rescheduleJobs({ status: 'RUNNING' }, '1h')).toEqual({
      rescheduled: 0,
    });
    await end();
    expect((await engine.runJobEngine()).start).toHaveLength(3);
    await engine.waitForJob(one!.jobRunIdentifier);
  });

  it('retryJobs retries failed jobs that have left the queue', async () => {
    const { engine, jobs, sql } = bildad;
    await sql('DELETE FROM bildad.job_runs');
    const failing = await engine.enqueueJobs(CountedJob, [
      { count: -1 },
      { count: 1 },
      { count: -2 },
    ]);
    await engine.runJobEngine();
    for (const { jobRunIdentifier } of failing) await engine.waitForJob(jobRunIdentifier);
    expect(await engine.retryJobs({ job: CountedJob, reason: 'Timeout' })).toEqual({
      retried: 0,
      refused: 0,
    });
    const all = () => engine.retryJobs({ job: CountedJob });
    expect(await all()).toEqual({ retried: 2, refused: 0 });
    expect(await all()).toEqual({ retried: 0, refused: 0 });
    const retries = await jobs.listJobsToRunInTheQueue();
    const counts = retries.map(({ jobContext }) => (jobContext as CountedContext).count);
    expect(new Set(counts)).toEqual(new Set([-1, -2]));
    // A second call retries the retries that failed again, but not the originals.
    await sql(
      `UPDATE bildad.job_queue_entries SET job_context = '{"count": 1}' WHERE job_context ->> 'count' = '-2'`,
    );
    await engine.runJobEngine();
    for (const { jobRunIdentifier } of retries) await engine.waitForJob(jobRunIdentifier);
    expect(await all()).toEqual({ retried: 1, refused: 0 });
    await engine.cancelJobs({ job: CountedJob });
    await sql(
      `UPDATE bildad.job_runs SET job_context = '{}', retried_at = NULL WHERE job_context ->> 'count' = '-2'`,
    );
    expect(await all()).toEqual({ retried: 0, refused: 1 });
  });

  it('an empty list of identifiers matches no job', async () => {
    await counted(2);
    expect(await bildad.engine.cancelJobs({ jobRunIdentifiers: [] })).toEqual({
      removed: 0,
      stopped: 0,
    });
    expect(await bildad.jobs.getNumberOfJobsInTheQueue()).toBe(2);
  });

  it.each<[string, unknown, string]>([
    ['undefined', undefined, 'filter'],
    ['no fields', {}, 'filter'],
    ['an undefined job', { job: undefined, status: 'AVAILABLE' }, 'filter.job'],
    ['an unknown field', { template: 'X' }, 'filter.template'],
    ['an unknown status', { status: 'DONE' }, 'filter.status'],
    ['a number as job', { job: 5 }, 'job'],
    ['an invalid duration', { olderThan: 'long' }, 'filter.olderThan'],
    ['a fractional priority', { priority: { min: 0.5 } }, 'filter.priority.min'],
    ['an undefined bound', { priority: { min: undefined } }, 'filter.priority.min'],
    [
      'an undefined bound beside another',
      { priority: { min: 1, max: undefined } },
      'filter.priority.max',
    ],
    ['empty bounds', { priority: {} }, 'filter.priority'],
    ['empty bounds and a job', { job: 'COUNTED', priority: {} }, 'filter.priority'],
    ['a null priority', { priority: null }, 'filter.priority'],
    ['a text as list', { jobRunIdentifiers: 'a' }, 'filter.jobRunIdentifiers'],
  ])('a filter with %s is refused', async (_what, filter, field) => {
    await counted(1);
    const error: unknown = await bildad.engine
      .cancelJobs(filter as JobFilter)
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(BildadConfigError);
    expect(error).toMatchObject({ field });
    expect(await bildad.jobs.getNumberOfJobsInTheQueue()).toBe(1);
  });
});
