import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { bootIsolated, type IsolatedApp } from '../support/isolation-app.js';
import { brief, until } from '../support/watch.js';

// What a job says in a thread or process of its own is as good as what one says here.

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

it.each(['THREAD', 'PROCESS'])('%s', async (code) => {
  const jobRunIdentifier = `says ${code}`;
  await bildad.engine.enqueueJob(
    code,
    { act: 'reportThenFail' },
    { jobRunIdentifier, maxRetries: 0 },
  );
  const updates = await until(elsewhere.jobs.watch(jobRunIdentifier));
  const told = updates.map(brief).filter((one) => !one.startsWith('queued'));
  expect(told.filter((one) => !/^(log|fatal)/.test(one))).toEqual([
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
});
