import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { around, carry, enhancedJobs, Tenants } from '../fixtures/enhanced-jobs.js';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

// What stands around a handler, and what its job carries, in the app itself, a thread and a process.

const MODULE = new URL('../../dist/test/fixtures/enhanced-jobs.module.js', import.meta.url);

let database: TestDatabase;
let bildad: TestApp;
beforeAll(async () => {
  database = await createDatabase();
  process.env['ENHANCED_JOBS_DATABASE_URL'] = database.url;
  bildad = await bootApp({
    database,
    providers: [Tenants, ...enhancedJobs],
    options: {
      tickInterval: '50ms',
      carry,
      isolation: {
        module: MODULE,
        export: 'EnhancedJobsModule',
        threads: 1,
        processes: 1,
      },
    },
  });
});
afterAll(async () => {
  await bildad.close();
  await database.drop();
});

describe.each(['INLINE', 'THREAD', 'PROCESS'])('%s', (isolation) => {
  const code = `ENHANCED_${isolation}`;
  const run = async (context: object, tenant?: string) => {
    const enqueue = () => bildad.engine.enqueueJob(code, context);
    const { jobRunIdentifier } = await (tenant ? around.run({ tenant }, enqueue) : enqueue());
    return bildad.engine.waitForJob(jobRunIdentifier, { timeout: '20s' });
  };

  it('guard, interceptor and what is carried', async () => {
    expect(await run({ n: 1 }, 'acme')).toMatchObject({
      result: 'SUCCEEDED',
      output: {
        context: { n: 1 },
        tenant: 'acme',
        by: `${code} of EnhancedJob`,
      },
    });
    expect((await run({})).output).toMatchObject({ tenant: null });
  });

  it('a guard within what is carried refuses', async () => {
    expect(await run({}, 'evil')).toMatchObject({
      result: 'FAILED',
      reason: expect.stringContaining('Forbidden resource') as string,
    });
  });

  it('a filter', async () => {
    const { jobRunIdentifier, reason } = await run({ fail: true }, 'acme');
    expect(reason).toContain(`requested in ${jobRunIdentifier}`);
  });
});
