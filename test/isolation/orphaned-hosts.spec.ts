import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { isAlive } from '../support/is-alive.js';
import { startWorker } from '../support/worker.js';
import { actors } from '../fixtures/isolation-app.js';

let bildad: TestApp;

beforeAll(async () => {
  bildad = await bootApp({ providers: actors, options: { role: 'producer' } });
});
afterAll(() => bildad.close());

it('a process ends after its node is killed, even if its handler blocks', async () => {
  const node = await startWorker(bildad.database.url, {}, 'isolation-node');
  const entry = await bildad.engine.enqueueJob('PROCESS', { act: 'spin' });
  const facts = async () => {
    const [run] = await bildad.jobs.listJobRunsForIdentifier(entry.jobRunIdentifier);
    return run ? bildad.jobs.inspectJobProcess(run) : null;
  };
  await expect.poll(async () => (await facts())?.cpuMs ?? 0).toBeGreaterThan(100);
  const { pid } = (await facts())!;
  expect(pid).not.toBe(node.process.pid);
  expect(isAlive(pid!)).toBe(true);
  await node.kill();
  await expect.poll(() => isAlive(pid!)).toBe(false);
});
