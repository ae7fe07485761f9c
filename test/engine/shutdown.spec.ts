import { expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase } from '../support/database.js';
import { GatedJob } from '../support/handlers.js';

// app.close(): claim no more jobs, let running jobs finish, then abort the rest and release them without a used retry.

async function withApp(
  options: Parameters<typeof bootApp>[0] & object,
  test: (bildad: TestApp) => Promise<void>,
): Promise<void> {
  const database = await createDatabase();
  const bildad = await bootApp({ providers: [GatedJob], database, ...options });
  try {
    await test(bildad);
  } finally {
    await bildad.close();
    await database.drop();
  }
}

it('close waits for a running job and starts no other', () =>
  withApp(
    { options: { shutdown: { drainTimeout: '20s' } } },
    async ({ engine, app, database, next }) => {
      const running = await engine.enqueueAndRunJob(GatedJob, {});
      const waiting = await engine.enqueueJob(GatedJob, {});
      const { door, job } = await GatedJob.arrival();
      const finished = next('run.finished');
      const closed = app.close();
      door.open('in time');
      expect(await finished).toMatchObject({
        jobRunId: running.id,
        outcome: 'completed',
      });
      await closed;
      expect(job.signal.aborted).toBe(false);
      expect(
        await database.sql('SELECT job_run_identifier, status FROM bildad.job_queue_entries'),
      ).toEqual([{ job_run_identifier: waiting.jobRunIdentifier, status: 'AVAILABLE' }]);
    },
  ));

it('close aborts a job that exceeds drainTimeout and reopens it without a used retry', () =>
  withApp(
    { options: { shutdown: { drainTimeout: 0, killGracePeriod: '10s' } } },
    async ({ engine, app, database }) => {
      await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
      const { job } = await GatedJob.arrival();
      await app.close();
      expect(job.signal.reason).toMatchObject({
        code: 'JOB_KILLED',
        why: 'interrupted',
      });
      expect(await database.sql('SELECT result, reason FROM bildad.job_runs')).toEqual([
        { result: 'FAILED', reason: 'Interrupted' },
      ]);
      expect(
        await database.sql(
          'SELECT status, retry, uncounted_runs, max_retries, scheduled FROM bildad.job_queue_entries',
        ),
      ).toEqual([
        {
          status: 'AVAILABLE',
          retry: 1,
          uncounted_runs: 1,
          max_retries: 0,
          scheduled: false,
        },
      ]);
    },
  ));

it('close waits for a handler that ignores its signal at most killGracePeriod', () =>
  withApp(
    { options: { shutdown: { drainTimeout: 0, killGracePeriod: 50 } } },
    async ({ engine, app, database, next }) => {
      const run = await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true });
      const { door } = await GatedJob.arrival();
      const abandoned = next('process.abandoned');
      await app.close();
      expect(await abandoned).toMatchObject({
        jobRunId: run.id,
        outcome: 'interrupted',
      });
      expect(await database.sql('SELECT reason FROM bildad.job_runs')).toEqual([
        { reason: 'Interrupted' },
      ]);
      const ended = next('process.ended');
      door.open('at last');
      await ended;
    },
  ));

it('a handler that returns after the abort completes', () =>
  withApp(
    { options: { shutdown: { drainTimeout: 0, killGracePeriod: '10s' } } },
    async ({ engine, app, database }) => {
      await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true });
      const { door, job } = await GatedJob.arrival();
      job.signal.addEventListener('abort', () => door.open('done after the abort'));
      await app.close();
      expect(await database.sql('SELECT result, output FROM bildad.job_runs')).toEqual([
        { result: 'SUCCEEDED', output: 'done after the abort' },
      ]);
      expect(await database.sql('SELECT 1 FROM bildad.job_queue_entries')).toEqual([]);
    },
  ));

it('a job can enqueue while the app drains', () =>
  withApp({ options: { shutdown: { drainTimeout: '20s' } } }, async ({ engine, app, database }) => {
    await engine.enqueueAndRunJob(GatedJob, {});
    const { door } = await GatedJob.arrival();
    const closed = app.close();
    const late = await engine.enqueueJob(GatedJob, { name: 'late' });
    await expect(engine.runJob(late)).rejects.toMatchObject({
      code: 'JOB_NOT_AVAILABLE',
    });
    door.open(null);
    await closed;
    expect(
      await database.sql('SELECT job_run_identifier AS id FROM bildad.job_queue_entries'),
    ).toEqual([{ id: late.jobRunIdentifier }]);
  }));

it('close succeeds twice and on an app without ticks', () =>
  withApp({ options: { role: 'producer' } }, async ({ app }) => {
    await app.close();
    await app.close();
  }));

it('a claim for runJob that arrives after close is released and does not start', () =>
  withApp(
    { options: { shutdown: { drainTimeout: 0 } } },
    async ({ engine, app, dataSource, database, events }) => {
      const { jobRunIdentifier, id } = await engine.enqueueJob(GatedJob, {});
      const holder = dataSource.createQueryRunner();
      await holder.startTransaction();
      await holder.query('SELECT FROM bildad.job_queue_entries WHERE id = $1 FOR UPDATE', [id]);
      const started: unknown[] = [];
      events.on('run.started', (event) => started.push(event));
      const refused = expect(engine.runJob({ id, jobRunIdentifier })).rejects;
      const claimed = refused.toMatchObject({ code: 'JOB_NOT_AVAILABLE' });
      const waits = () =>
        database.sql(
          `SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`,
        );
      await expect.poll(waits).toHaveLength(1);
      const closed = app.close();
      await expect.poll(() => engine.liveness().closing).toBe(true);
      await holder.rollbackTransaction();
      await holder.release();
      await claimed;
      await closed;
      expect(started).toEqual([]);
      expect(await database.sql('SELECT status, retry FROM bildad.job_queue_entries')).toEqual([
        { status: 'AVAILABLE', retry: 0 },
      ]);
    },
  ));
