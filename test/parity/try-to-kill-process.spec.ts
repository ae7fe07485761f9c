import { JobKilledError } from 'nestjs-bildad';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { bootApp, type TestApp } from '../support/app.js';
import { GatedJob } from '../support/handlers.js';

// try_to_kill_process: stops the process. JavaScript code cannot be killed from outside, so the
// engine aborts the signal and waits for the grace period. The return value tells whether the
// handler ended.

let bildad: TestApp;
beforeAll(async () => {
  bildad = await bootApp({ providers: [GatedJob] });
});
afterAll(() => bildad.close());

it('tryToKillProcess aborts the signal and returns true when the handler has ended', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {}, { maxRetries: 0 });
  const { job } = await GatedJob.arrival();
  const process = engine.findJobProcess(run)!;
  const ended = engine.waitForJob(run.jobRunIdentifier);
  expect(await engine.tryToKillProcess(process)).toBe(true);
  expect(process.isSettled).toBe(true);
  expect(job.signal.reason).toBeInstanceOf(JobKilledError);
  expect(await ended).toMatchObject({ result: 'FAILED', reason: 'Killed' });
});

it('tryToKillProcess returns false when the handler did not stop, and the run ends without it', async () => {
  const { engine } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, { ignoresAbort: true }, { maxRetries: 0 });
  const { door } = await GatedJob.arrival();
  const process = engine.findJobProcess(run)!;
  const abandoned = bildad.next('process.abandoned');
  expect(await engine.tryToKillProcess(process)).toBe(false);
  expect(await abandoned).toMatchObject({ jobRunId: run.id });
  expect(process.isSettled).toBe(false);
  expect(await engine.waitForJob(run.jobRunIdentifier)).toMatchObject({
    result: 'FAILED',
    reason: 'Killed',
  });
  const gone = bildad.next('process.ended');
  door.open(null);
  await gone;
});

it('tryToKillProcess returns true for a process that has ended and changes nothing', async () => {
  const { engine, jobs } = bildad;
  const run = await engine.enqueueAndRunJob(GatedJob, {});
  const { door } = await GatedJob.arrival();
  const process = engine.findJobProcess(run)!;
  const ended = engine.waitForJob(run.jobRunIdentifier);
  door.open('well');
  await ended;
  expect(await engine.tryToKillProcess(process)).toBe(true);
  expect(await jobs.listJobRunsForIdentifier(run.jobRunIdentifier)).toMatchObject([
    { result: 'SUCCEEDED', output: 'well' },
  ]);
});
