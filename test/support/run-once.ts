import { randomUUID } from 'node:crypto';
import type { Job, JobContext, JobEventMap, JobRun } from 'nestjs-bildad';
import type { TestApp } from './app.js';

/**
 * Runs a job once.
 * @returns the final run and the events of that run
 */
export async function runOnce<J extends Job>(
  { engine, jobs, next }: TestApp,
  job: J,
  context: JobContext<J>,
  options: { maxRetries?: number } = {},
): Promise<{ run: JobRun; event: JobEventMap['run.finished'][0] }> {
  const jobRunIdentifier = randomUUID();
  const finished = next('run.finished', (event) => event.jobRunIdentifier === jobRunIdentifier);
  await engine.enqueueAndRunJob(job, context, { ...options, jobRunIdentifier });
  const event = await finished;
  const [run] = await jobs.listJobRunsForIdentifier(jobRunIdentifier);
  return { run: run as JobRun, event };
}
