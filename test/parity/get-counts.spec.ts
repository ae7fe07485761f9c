import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// get_counts: how many results of a pass are good and how many are bad. No deviation from upstream.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob] });
});
afterAll(() => bildad.close());

it('getCounts counts good and bad outcomes', async () => {
  const { engine } = bildad;
  const jobRun = await engine.enqueueAndRunJob(SimpleJob, {});
  await engine.waitForJob(jobRun.jobRunIdentifier);
  const good = { ok: true, jobRun } as const;
  const bad = { ok: false, error: new Error('no') } as const;
  expect(engine.getCounts([])).toEqual({ okCount: 0, errorCount: 0 });
  expect(engine.getCounts([good, bad, good])).toEqual({
    okCount: 2,
    errorCount: 1,
  });
});

it('the counts cover the jobs that a pass launched, not their outcomes', async () => {
  const { engine } = bildad;
  const added = await engine.enqueueJobs(SimpleJob, [{ fail: 'later' }, {}, { fail: 'later' }], {
    maxRetries: 0,
  });
  const { start, expire } = await engine.runJobEngine();
  expect(engine.getCounts(start)).toEqual({ okCount: 3, errorCount: 0 });
  expect(engine.getCounts(expire)).toEqual({ okCount: 0, errorCount: 0 });
  for (const { jobRunIdentifier } of added) await engine.waitForJob(jobRunIdentifier);
});
