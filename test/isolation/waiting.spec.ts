import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';

// A job whose host is busy waits in its slot, and holds up nobody else.

let bildad: IsolatedApp;

beforeAll(async () => {
  bildad = await bootIsolated(
    { threads: 1 },
    { shutdown: { drainTimeout: '100ms', killGracePeriod: '100ms' } },
  );
});
afterAll(() => bildad.close());

it('others begin meanwhile, and who started it has its run', async () => {
  const first = await bildad.begin('THREAD', 'waitForAbort');
  const waiting = await bildad.engine.enqueueAndRunJob('THREAD', {
    act: 'greet',
  });
  expect(bildad.engine.findJobProcess(waiting)).not.toBeNull();
  const began = performance.now();
  const others = await bildad.engine.enqueueJobs('THREAD', [
    { act: 'greet' },
    { act: 'greet' },
    { act: 'greet' },
  ]);
  const other = await bildad.engine.enqueueAndRunJob('PROCESS', {
    act: 'greet',
  });
  await bildad.engine.waitForJob(other.jobRunIdentifier);
  // Each of the four that wait would take a second of the node's.
  expect(performance.now() - began).toBeLessThan(3_000);
  await bildad.engine.killJob({ id: first.jobRunId });
  expect(await bildad.engine.waitForJob(waiting.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
  for (const { jobRunIdentifier } of others) await bildad.engine.waitForJob(jobRunIdentifier);
});

it('one that is killed while it waits is told by its run', async () => {
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

it('a host that had to be ended is told of, and at shutdown none takes its place', async () => {
  const killed = bildad.next('process.killed');
  const { jobRunId } = await bildad.begin('THREAD', 'spin');
  const closing = bildad.app.close();
  expect(await killed).toMatchObject({ jobRunId, isolation: 'thread' });
  await closing;
});
