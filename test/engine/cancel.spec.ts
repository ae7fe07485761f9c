import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// cancelJob is for good, however the run ends meanwhile and wherever it runs.

let one: TestApp;
let other: TestApp;
beforeAll(async () => {
  one = await bootApp({ providers: [GatedJob] });
  other = await bootApp({ providers: [GatedJob], database: one.database });
});
afterAll(async () => {
  await other.close();
  await one.close();
});

const entryOf = (identifier: string) =>
  one.jobs.getJobQueueEntryForIdentifier(identifier);

it('a job that fails before its node has seen the request does not come back', async () => {
  const run = await one.engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  expect(await other.engine.cancelJob({ id: run.jobQueueEntryId })).toBeNull();
  await one.engine.failJob(run, new Error('by itself'));
  expect(await entryOf(run.jobRunIdentifier)).toBeNull();
});

it('a job whose node is gone does not come back when it is expired', async () => {
  const run = await one.engine.enqueueAndRunJob(GatedJob, {});
  await GatedJob.arrival();
  await other.engine.cancelJob({ id: run.jobQueueEntryId });
  await one.engine.expireJob(run);
  expect(await entryOf(run.jobRunIdentifier)).toBeNull();
});

it('a job that ends and is reopened at the same moment is gone, every time', async () => {
  for (let round = 0; round < 30; round++) {
    const run = await one.engine.enqueueAndRunJob(GatedJob, {});
    await GatedJob.arrival();
    const ends = one.engine
      .failJob(run, new Error('by itself'))
      .catch(() => undefined);
    for (let turn = 0; turn < round; turn++) await Promise.resolve();
    await one.engine.cancelJob({ id: run.jobQueueEntryId });
    await ends;
    expect(await entryOf(run.jobRunIdentifier)).toBeNull();
  }
});
