import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';
import { brief, until } from '../support/watch.js';

// Progress, log lines and output of an isolated job arrive like those of an inline job.

let bildad: IsolatedApp;
let elsewhere: TestApp;
beforeAll(async () => {
  bildad = await bootIsolated();
  const { database } = bildad;
  elsewhere = await bootApp({ database, options: { role: 'producer' } });
});
afterAll(async () => {
  await elsewhere.close();
  await bildad.close();
});

it.each(['THREAD', 'PROCESS'])(
  'updates and log lines of an isolated job reach other nodes: %s',
  async (code) => {
    const jobRunIdentifier = `run of ${code}`;
    await bildad.engine.enqueueJob(
      code,
      { act: 'reportThenFail' },
      { jobRunIdentifier, maxRetries: 0 },
    );
    const updates = await until(elsewhere.jobs.watch(jobRunIdentifier));
    const received = updates.map(brief).filter((one) => !one.startsWith('queued'));
    expect(received.filter((one) => !/^(log|fatal)/.test(one))).toEqual([
      'running 0',
      'progress 0.5 half way',
      'chunk {"chunk":1}',
      'gap 1',
      'end 0 FAILED',
    ]);
    await expect
      .poll(() => elsewhere.jobs.logs(jobRunIdentifier))
      .toMatchObject([
        {
          retry: 0,
          lines: [
            { level: 'log', message: 'a line' },
            { level: 'fatal', message: 'a grave one { n: 1 }' },
          ],
        },
      ]);
  },
);
