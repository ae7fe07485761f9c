import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// A job whose host is busy waits in its slot and delays no other job.

let bildad: IsolatedApp;

beforeAll(async () => {
  bildad = await bootIsolated(
    { threads: 1 },
    { shutdown: { drainTimeout: '100ms', killGracePeriod: '100ms' } },
  );
});
afterAll(() => bildad.close());

it('other jobs start while a job waits for a host, and its caller has its run', async () => {
  const first = await bildad.begin('THREAD', 'waitForAbort');
  const waiting = await bildad.engine.enqueueAndRunJob('THREAD', {
    act: 'greet',
  });
  expect(bildad.engine.findJobProcess(waiting)).not.toBeNull();
  const began = performance.now();
  const otherJobs = await bildad.engine.enqueueJobs('THREAD', [
    { act: 'greet' },
    { act: 'greet' },
    { act: 'greet' },
  ]);
  const other = await bildad.engine.enqueueAndRunJob('PROCESS', {
    act: 'greet',
  });
  await bildad.engine.waitForJob(other.jobRunIdentifier);
  // Each of the four waiting jobs would delay the node by a second.
  expect(performance.now() - began).toBeLessThan(3_000);
  await bildad.engine.killJob({ id: first.jobRunId });
  expect(await bildad.engine.waitForJob(waiting.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
  for (const { jobRunIdentifier } of otherJobs) await bildad.engine.waitForJob(jobRunIdentifier);
});

it('a job that waits for a host can be killed', async () => {
  const first = await bildad.begin('THREAD', 'waitForAbort');
  const waiting = await bildad.engine.enqueueAndRunJob(
    'THREAD',
    { act: 'greet' },
    { maxRetries: 0 },
  );
  expect(await bildad.engine.killJob(waiting)).toMatchObject({
    reason: 'Killed',
  });
  await bildad.engine.killJob({ id: first.jobRunId });
});

it('a killed host is reported, and a shutdown does not replace it', async () => {
  const killed = bildad.next('process.killed');
  const { jobRunId } = await bildad.begin('THREAD', 'spin');
  const closing = bildad.app.close();
  expect(await killed).toMatchObject({ jobRunId, isolation: 'thread' });
  await closing;
});
