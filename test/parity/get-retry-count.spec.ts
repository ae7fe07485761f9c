import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// get_retry_count: the current run's retry + 1, or 0 when the entry has no run. This is the retry
// number of its next run. No deviation from upstream.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
afterAll(() => bildad.close());

it("the retry count is 0 without a run, then one more than the current run's retry", async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  expect(await engine.getRetryCount(entry)).toBe(0);
  for (let retry = 0; retry < 3; retry++) {
    const run = await engine.runJob(entry);
    await GatedJob.arrival();
    expect(run.retry).toBe(retry);
    expect(await engine.getRetryCount(entry)).toBe(retry + 1);
    await engine.failJob(run, new Error('again'));
    expect(await engine.getRetryCount(entry)).toBe(retry + 1);
  }
});

it('the retry count of a removed entry is 0', async () => {
  const { engine } = bildad;
  const entry = await engine.enqueueJob(GatedJob, {});
  await engine.removeJobFromQueue(entry);
  expect(await engine.getRetryCount(entry)).toBe(0);
});
