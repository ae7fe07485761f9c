import type { Job, JobContext, JobEventMap, JobRun } from 'nestjs-bildad';
import type { TestApp } from './app.js';

/** Has a job run once. @returns its run as it ended, and what was told of that */
export async function once<J extends Job>(
  { engine, jobs, next }: TestApp,
  job: J,
  context: JobContext<J>,
): Promise<{ run: JobRun; event: JobEventMap['run.finished'][0] }> {
  const finished = next('run.finished');
  const { jobRunIdentifier } = await engine.enqueueAndRunJob(job, context);
  const event = await finished;
  const [run] = await jobs.listJobRunsForIdentifier(jobRunIdentifier);
  return { run: run as JobRun, event };
}
