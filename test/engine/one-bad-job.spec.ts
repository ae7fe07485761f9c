import { registerDecorator, type ValidationOptions } from 'class-validator';
import { BildadJob, type JobHandler } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob, SimpleJob } from '../support/handlers.js';

// One bad job, listener or caller does not affect the others.

let hanging = false;

function HangsWhenRun(options?: ValidationOptions) {
  return (target: object, propertyName: string) =>
    registerDecorator({
      name: 'hangsWhenRun',
      target: target.constructor,
      propertyName,
      ...(options && { options }),
      async: true,
      validator: {
        validate: () => (hanging ? new Promise<boolean>(() => {}) : true),
      },
    });
}

class SlowlyCheckedContext {
  @HangsWhenRun() name!: string;
}

@BildadJob({
  code: 'HUNG',
  context: SlowlyCheckedContext,
  timeout: 1500,
  maxRetries: 0,
  priority: 1,
})
class HungJob implements JobHandler<SlowlyCheckedContext> {
  runJob(): void {}
}

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [SimpleJob, GatedJob, HungJob] });
});
afterAll(() => bildad.close());

it("a validator that hangs holds its slot until the job's timeout, and delays no other job", async () => {
  const { engine } = bildad;
  const hung = await engine.enqueueJob(HungJob, { name: 'x' });
  const other = await engine.enqueueJob(SimpleJob, { say: 'well' });
  hanging = true;
  const { start } = await engine.runJobEngine();
  hanging = false;
  expect(start).toHaveLength(2);
  expect(await engine.waitForJob(other.jobRunIdentifier)).toMatchObject({
    output: 'well',
  });
  expect(await engine.waitForJob(hung.jobRunIdentifier)).toMatchObject({
    reason: 'Timeout',
  });
});

it('a listener that rejects is reported and affects no job', async () => {
  const { engine, events, next } = bildad;
  const failed = next('engine.error');
  const rejecting = () => Promise.reject(new Error('my own business'));
  const off = events.on('run.finished', rejecting);
  const run = await engine.enqueueAndRunJob(SimpleJob, {});
  expect(await failed).toMatchObject({ doing: 'calling a listener of run.finished' });
  off();
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
});

it('an entry whose timeout exceeds the maximum interval does not block the head of the queue', async () => {
  const { engine, sql } = bildad;
  const endless = await engine.enqueueJob(SimpleJob, {}, { priority: 0 });
  await sql('UPDATE bildad.job_queue_entries SET timeout_ms = 9e15 WHERE id = $1', [endless.id]);
  const behind = await engine.enqueueJob(SimpleJob, {});
  await engine.runJobEngine();
  expect(await engine.waitForJob(endless.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
  expect(await engine.waitForJob(behind.jobRunIdentifier)).toMatchObject({
    result: 'SUCCEEDED',
  });
});

it('large outputs full of quotes are stored unchanged', async () => {
  const { engine } = bildad;
  const say = '"\\'.repeat(100_000);
  const contexts = Array.from({ length: 5 }, () => ({}));
  const entries = await engine.enqueueJobs(GatedJob, contexts);
  await engine.runJobEngine();
  const arrivals = await Promise.all(entries.map(() => GatedJob.arrival()));
  for (const { door } of arrivals) door.open(say);
  for (const { jobRunIdentifier } of entries)
    expect(await engine.waitForJob(jobRunIdentifier)).toMatchObject({
      output: say,
    });
});
