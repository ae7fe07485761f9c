import { afterEach, describe, expect, it } from 'vitest';
import { BildadJob } from 'nestjs-bildad';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

// Settings that an administrator may have made for a database, and that apply to every session.

@BildadJob({ code: 'ADD', maxRetries: 3 })
class AddJob {
  runJob({ n }: { n: number }, { attempt }: { attempt: number }) {
    if (n % 10 === 0 && attempt === 1) throw new Error('once more');
    return n + 1;
  }
}

const JOBS = 200;
const apps: TestApp[] = [];
let database: TestDatabase | undefined;

afterEach(async () => {
  await Promise.all(apps.splice(0).map((app) => app.close()));
  await database?.drop();
  database = undefined;
});

async function bootTwo(settings: Record<string, string>): Promise<TestApp> {
  database = await createDatabase();
  const name = new URL(database.url).pathname.slice(1);
  for (const [setting, value] of Object.entries(settings))
    await database.sql(`ALTER DATABASE ${name} SET ${setting} = '${value}'`);
  while (apps.length < 2)
    apps.push(
      await bootApp({
        database,
        providers: [AddJob],
        options: { tickInterval: '50ms' },
      }),
    );
  return apps[0]!;
}

describe.each<[string, Record<string, string>]>([
  ['transactions are serializable', { default_transaction_isolation: 'serializable' }],
  [
    'statements and locks have short timeouts',
    {
      statement_timeout: '500ms',
      lock_timeout: '100ms',
      idle_in_transaction_session_timeout: '200ms',
    },
  ],
  ['times are shown in another zone', { timezone: 'Asia/Kolkata', intervalstyle: 'sql_standard' }],
  ['commits do not wait for the disk', { synchronous_commit: 'off' }],
])('%s', (_name, settings) => {
  it('two nodes run each job to its end once', async () => {
    const { engine, jobs, sql } = await bootTwo(settings);
    const contexts = Array.from({ length: JOBS }, (_, n) => ({ n }));
    const before = Date.now();
    await engine.enqueueJobs('ADD', contexts);
    const later = await engine.enqueueJob('ADD', { n: 1 }, { delay: '300ms' });
    await engine.waitForJob(later.jobRunIdentifier);
    await expect.poll(() => jobs.getNumberOfJobsInTheQueue(), { timeout: 15_000 }).toBe(0);
    expect(
      await sql(
        `SELECT result, count(*)::int FROM bildad.job_runs GROUP BY result ORDER BY result`,
      ),
    ).toEqual([
      { result: 'FAILED', count: JOBS / 10 },
      { result: 'SUCCEEDED', count: JOBS + 1 },
    ]);
    const [run] = await jobs.listJobRunsForIdentifier(later.jobRunIdentifier);
    expect(run!.startedAt.getTime()).toBeGreaterThanOrEqual(before + 299);
    expect(run!.startedAt.getTime()).toBeLessThan(Date.now() + 1);
  });
});
