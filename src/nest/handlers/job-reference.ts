import { BildadConfigError } from '../../job/errors.js';
import type { JobHandlerClass } from '../../job/job-handler.js';
import type { JobReference } from '../../lifecycle/templates/templates.js';
import { JobTemplate } from '../../database/entities/index.js';
import { jobOptionsOf } from './bildad-job.decorator.js';
import { contractOf, traitsOf } from './declaration.js';

/** @throws BildadConfigError when `job` is neither a decorated class, nor a code, nor a template */
export function referenceTo(
  job: JobHandlerClass | string | Pick<JobTemplate, 'code'>,
): JobReference {
  if (typeof job === 'string') return { code: job };
  const options = jobOptionsOf(job);
  if (options)
    return {
      code: options.code,
      contract: contractOf(options, (job as JobHandlerClass).name),
      traits: traitsOf(options, (job as JobHandlerClass).name),
    };
  const { code } = (job ?? {}) as { code?: unknown };
  if (typeof job === 'object' && typeof code === 'string') return { code };
  throw new BildadConfigError(
    'job',
    "a class decorated with @BildadJob, a template's code, or a JobTemplate",
    job,
  );
}

/** The code of a job's template. @throws BildadConfigError when `job` is neither a decorated class, nor a code, nor a template */
export const jobCodeOf = (job: JobHandlerClass | string | Pick<JobTemplate, 'code'>): string =>
  referenceTo(job).code;
