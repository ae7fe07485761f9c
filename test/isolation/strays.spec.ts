import { afterAll, beforeAll, expect, it } from 'vitest';
import { actors, type Act } from '../fixtures/isolation-app.js';
import { bootApp, type TestApp } from '../support/app.js';
import { startWorker, type Worker } from '../support/worker.js';

// In a node of its own: the test runner takes every unhandled rejection of its process for a failure.

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

it('an unhandled rejection of an inline handler fails its run and no other, and the node lives', async () => {
  const beside = run('sleep');
  expect(await run('rejection')).toMatchObject({
    result: 'FAILED',
    error: { name: 'RangeError', message: 'unhandled rejection' },
  });
  expect((await beside).result).toBe('SUCCEEDED');
  expect((await run('greet')).result).toBe('SUCCEEDED');
});

it('its handler has its time to end: it does not run beside its own retry', async () => {
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

it('one that comes after the end of its run changes nothing of it', async () => {
  const ended = await run('rejectAfterEnd');
  await run('sleep');
  const [after] = await bildad.jobs.listJobRunsForIdentifier(ended.jobRunIdentifier);
  expect(after).toMatchObject({ result: 'SUCCEEDED' });
  expect(node.process.exitCode).toBeNull();
});

it('one that is of no job ends the process, as it would without us', async () => {
  const other = await startWorker(bildad.database.url, {}, 'isolation-node');
  const exit = new Promise((resolve) => other.process.once('exit', resolve));
  other.process.send('reject');
  expect(await exit).toBe(1);
});
