import type { JobExecution } from '../../job/job-execution.js';

/** What `@Inject(REQUEST)` gives in a job: the run that REQUEST-scoped providers are made for. */
export class JobRequest<C = unknown> {
  constructor(
    /** The job's context, validated. */
    readonly context: C,
    readonly job: JobExecution,
  ) {}
}
