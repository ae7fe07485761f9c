import { afterAll, beforeAll, expect, it } from 'vitest';
import { actors, type Act } from '../fixtures/isolation-app.js';
import { bootApp, type TestApp } from '../support/app.js';
import { startWorker, type Worker } from '../support/worker.js';

// In a node process of its own, because the test runner reports every unhandled rejection in its process.

let bildad: TestApp;
let node: Worker;
beforeAll(async () => {
  bildad = await bootApp({ providers: actors, options: { role: 'producer' } });
  node = await startWorker(bildad.database.url, {}, 'isolation-node');
});
afterAll(async () => {
  await node.terminate();
  await bildad.close();
});

const run = async (act: Act) => {
  const { jobRunIdentifier } = await bildad.engine.enqueueJob('INLINE', { act }, { maxRetries: 0 });
  return bildad.engine.waitForJob(jobRunIdentifier);
};

it('an unhandled rejection of an inline handler fails its run only, and the node survives', async () => {
  const beside = run('sleep');
  expect(await run('rejection')).toMatchObject({
    result: 'FAILED',
    error: { name: 'RangeError', message: 'unhandled rejection' },
  });
  expect((await beside).result).toBe('SUCCEEDED');
  expect((await run('greet')).result).toBe('SUCCEEDED');
});

it('a rejected run ends after its handler, so that it does not overlap with its retry', async () => {
  const { jobRunIdentifier } = await bildad.engine.enqueueJob(
    'INLINE',
    { act: 'rejectWhileRunning' },
    { maxRetries: 1, backoff: { type: 'fixed', delay: 0 } },
  );
  await bildad.engine.waitForJob(jobRunIdentifier);
  const runs = await bildad.jobs.listJobRunsForIdentifier(jobRunIdentifier);
  expect(runs).toHaveLength(2);
  for (const { reason, startedAt, endedAt } of runs) {
    expect(reason).toBe('unhandled rejection');
    expect(endedAt!.getTime() - startedAt.getTime()).toBeGreaterThan(200);
  }
});

it('an unhandled rejection after the end of its run changes nothing', async () => {
  const ended = await run('rejectAfterEnd');
  await run('sleep');
  const [after] = await bildad.jobs.listJobRunsForIdentifier(ended.jobRunIdentifier);
  expect(after).toMatchObject({ result: 'SUCCEEDED' });
  expect(node.process.exitCode).toBeNull();
});

it('an unhandled rejection outside of jobs ends the process', async () => {
  const other = await startWorker(bildad.database.url, {}, 'isolation-node');
  const exit = new Promise((resolve) => other.process.once('exit', resolve));
  other.process.send('reject');
  expect(await exit).toBe(1);
});
