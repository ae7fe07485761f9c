import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { tenantStorage, carry, enhancedJobs, Tenants } from '../fixtures/enhanced-jobs.js';
import { bootApp, type TestApp } from '../support/app.js';
import { createDatabase, type TestDatabase } from '../support/database.js';

// Enhancers and propagated data inline, in a thread and in a process.

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
    const { jobRunIdentifier } = await (tenant
      ? tenantStorage.run({ tenant }, enqueue)
      : enqueue());
    return bildad.engine.waitForJob(jobRunIdentifier, { timeout: '20s' });
  };

  it('the guard and the interceptor run, and the tenant is propagated', async () => {
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

  it('a guard can reject the run by the propagated tenant', async () => {
    expect(await run({}, 'evil')).toMatchObject({
      result: 'FAILED',
      reason: expect.stringContaining('Forbidden resource') as string,
    });
  });

  it('the filter replaces the error', async () => {
    const { jobRunIdentifier, reason } = await run({ fail: true }, 'acme');
    expect(reason).toContain(`requested in ${jobRunIdentifier}`);
  });
});
