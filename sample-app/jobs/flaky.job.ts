import { IsInt, Max, Min } from 'class-validator';
import { BildadJob, type JobExecution, type JobHandler } from 'nestjs-bildad';

export class FlakyContext {
  /** How often it fails before it succeeds. */
  @IsInt()
  @Min(0)
  @Max(10)
  failures!: number;
}

export class ServiceUnavailableError extends Error {
  override name = 'ServiceUnavailableError';
}

/** Stands for a service that is away for a moment: what a handler throws is tried again after the backoff. */
@BildadJob({
  code: 'SAMPLE_FLAKY',
  name: 'Call a flaky service',
  context: FlakyContext,
  timeout: '10s',
  maxRetries: 3,
  backoff: { type: 'fixed', delay: '200ms' },
})
export class FlakyJob implements JobHandler<FlakyContext, { attempts: number }> {
  runJob({ failures }: FlakyContext, job: JobExecution): { attempts: number } {
    if (job.attempt <= failures)
      throw new ServiceUnavailableError(`no answer to attempt ${job.attempt}`);
    return { attempts: job.attempt };
  }
}
