import { BildadJob, JobTemplateNotFoundError, type BildadRole } from 'nestjs-bildad';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// The resources that a process uses by its role (database connections and threads), and what each
// role can do.

@BildadJob({ code: 'THREADED', isolation: 'thread' })
class ThreadedJob {
  runJob() {}
}

let database: TestDatabase;
const apps: TestApp[] = [];
beforeEach(async () => {
  database = await createDatabase();
});
afterEach(async () => {
  for (const app of apps.splice(0)) await app.close();
  await database.drop();
});

const boot = async (
  role: BildadRole,
  options: object = {},
  providers: NonNullable<Parameters<typeof bootApp>[0]>['providers'] = [SimpleJob],
) => {
  const app = await bootApp({
    database,
    providers,
    options: { role, tickInterval: 50, ...options },
  });
  apps.push(app);
  return app;
};

/** Number of sessions by application name in pg_stat_activity. */
async function sessions(): Promise<Record<string, number>> {
  const rows = await database.sql<{ name: string; count: number }>(
    `SELECT application_name AS name, count(*)::int AS count FROM pg_stat_activity
     WHERE datname = current_database() AND application_name LIKE 'nestjs-bildad%' GROUP BY 1`,
  );
  return Object.fromEntries(rows.map(({ name, count }) => [name, count]));
}

const resources = (kind: string) =>
  process.getActiveResourcesInfo().filter((name) => name === kind).length;

describe('a producer', () => {
  it('a producer holds connections for its statements only, and no thread', async () => {
    const threads = resources('Worker');
    const producer = await boot('producer', {}, [SimpleJob, ThreadedJob]);
    await producer.engine.enqueueJobs(SimpleJob, [{}, {}]);
    await Promise.all(Array.from({ length: 50 }, () => producer.engine.enqueueJob(SimpleJob, {})));
    expect(Object.keys(await sessions())).toEqual(['nestjs-bildad']);
    expect((await sessions())['nestjs-bildad']).toBeLessThanOrEqual(4);
    expect(resources('Worker')).toBe(threads);
    expect(await producer.jobs.listNodes()).toEqual([]);
  });

  it('a producer listens from its first waitForJob', async () => {
    const producer = await boot('producer', {}, [GatedJob]);
    await boot('worker', {}, [GatedJob]);
    const listening = () =>
      database.sql(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'",
      );
    await expect.poll(listening).toHaveLength(1);
    const { jobRunIdentifier } = await producer.engine.enqueueJob(GatedJob, {});
    const waiting = producer.engine.waitForJob(jobRunIdentifier);
    const { door } = await GatedJob.arrival();
    await expect.poll(listening).toHaveLength(2);
    door.open('hello');
    expect(await waiting).toMatchObject({ output: 'hello' });
  });

  it('a producer finds a code only after another process has declared it', async () => {
    const producer = await boot('producer', {}, []);
    await expect(producer.engine.enqueueJob('SIMPLE', {})).rejects.toBeInstanceOf(
      JobTemplateNotFoundError,
    );
    await boot('worker');
    const { jobRunIdentifier } = await producer.engine.enqueueJob('SIMPLE', {});
    await producer.engine.waitForJob(jobRunIdentifier);
  });

  it('a producer declares the templates of its handlers', async () => {
    const producer = await boot('producer');
    await producer.engine.enqueueJob(SimpleJob, {});
    expect(await producer.jobs.listJobTemplates()).toMatchObject([{ code: 'SIMPLE' }]);
  });
});

describe('a worker', () => {
  it('a worker holds at most 6 connections, and its jobs can enqueue', async () => {
    const worker = await boot('worker', { concurrency: 50 });
    const entries = await worker.engine.enqueueJobs(
      SimpleJob,
      Array.from({ length: 200 }, () => ({})),
    );
    await Promise.all(entries.map((entry) => worker.engine.waitForJob(entry.jobRunIdentifier)));
    await expect.poll(sessions).toMatchObject({ 'nestjs-bildad heartbeat': 1 });
    const all = Object.values(await sessions()).reduce((a, b) => a + b);
    expect(all).toBeLessThanOrEqual(6);
  });

  it('notify: false saves one connection', async () => {
    await boot('worker', { notify: false });
    await expect.poll(sessions).toMatchObject({ 'nestjs-bildad heartbeat': 1 });
    expect(
      await database.sql(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'",
      ),
    ).toEqual([]);
  });
});
