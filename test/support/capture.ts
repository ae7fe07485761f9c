import { BildadJob, InvalidJobContextError, type Job, type JobHandler } from 'nestjs-bildad';
import { expect } from 'vitest';
import type { TestApp } from './app.js';

/** Returns nothing and keeps the context it received. Accepts any context. */
@BildadJob({ code: 'CAPTURE', maxRetries: 0 })
export class CaptureJob implements JobHandler<unknown> {
  static received: unknown;

  runJob(context: unknown): void {
    CaptureJob.received = context;
  }
}

/**
 * Runs a job with this context.
 * @returns the context as stored in the entry, in the run, and as the handler received it
 */
export async function roundTrip(
  { engine }: TestApp,
  context: unknown,
): Promise<{ entry: unknown; run: unknown; handler: unknown }> {
  const entry = await engine.enqueueJob(CaptureJob, context);
  CaptureJob.received = undefined;
  await engine.runJob(entry);
  const run = await engine.waitForJob(entry.jobRunIdentifier);
  expect(run.reason).toBeNull();
  return {
    entry: entry.jobContext,
    run: run.jobContext,
    handler: CaptureJob.received,
  };
}

/** The violations that reject this context. Nothing is enqueued then. */
export async function refusal(
  { engine, jobs }: TestApp,
  context: unknown,
  job: Job = CaptureJob,
): Promise<{ path: string; message: string }[]> {
  const before = await jobs.getNumberOfJobsInTheQueue();
  const error: unknown = await engine
    .enqueueJob(job, context as object)
    .catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(InvalidJobContextError);
  expect(await jobs.getNumberOfJobsInTheQueue()).toBe(before);
  const { violations, message } = error as InvalidJobContextError;
  expect(violations.length).toBeGreaterThan(0);
  for (const violation of violations) {
    expect(violation.message).not.toBe('');
    expect(message).toContain(violation.message);
  }
  return violations;
}
