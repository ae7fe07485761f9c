import { JobNotAvailableError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { SimpleJob } from '../support/handlers.js';

// Ten concurrent callers on two nodes: one claims the entry, nine receive JobNotAvailableError.

let one: TestApp;
let other: TestApp;
beforeAll(async () => {
  one = await bootApp({ providers: [SimpleJob] });
  other = await bootApp({ providers: [SimpleJob], database: one.database });
});
afterAll(async () => {
  await other.close();
  await one.close();
});

it('concurrent runJob calls run an entry once', async () => {
  for (let round = 0; round < 20; round++) {
    SimpleJob.runs = 0;
    const entry = await one.engine.enqueueJob(SimpleJob, { say: round });
    const calls = await Promise.allSettled(
      Array.from({ length: 10 }, (_caller, n) => (n % 2 ? one : other).engine.runJob(entry)),
    );
    const run = await one.engine.waitForJob(entry.jobRunIdentifier);

    expect(calls.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const answer of calls)
      if (answer.status === 'rejected') expect(answer.reason).toBeInstanceOf(JobNotAvailableError);
    expect(SimpleJob.runs).toBe(1);
    expect(run).toMatchObject({ result: 'SUCCEEDED', retry: 0, output: round });
    expect(await one.jobs.listJobRunsForIdentifier(entry.jobRunIdentifier)).toHaveLength(1);
  }
});

it('concurrent passes and runJob calls start an entry once', async () => {
  for (let round = 0; round < 20; round++) {
    SimpleJob.runs = 0;
    const entry = await one.engine.enqueueJob(SimpleJob, {});
    await Promise.allSettled([
      one.engine.runJobEngine(),
      other.engine.runJobEngine(),
      one.engine.runJob(entry),
      other.engine.runJob(entry),
    ]);
    await one.engine.waitForJob(entry.jobRunIdentifier);
    expect(SimpleJob.runs).toBe(1);
  }
});
