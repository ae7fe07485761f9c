import { type ArgumentsHost, type ContextType, ForbiddenException } from '@nestjs/common';
import { BildadConfigError } from '../../job/errors.js';
import type { JobExecution } from '../../job/job-execution.js';

/** What `getType()` of an ExecutionContext says: `'bildad'` where it is a job's. */
export type BildadContextType = ContextType | 'bildad';

export const JOB_CONTEXT_TYPE = 'bildad' satisfies BildadContextType;

/** What a guard, an interceptor or an exception filter is called with, as of a job. */
export class BildadExecutionContext {
  private constructor(private readonly host: ArgumentsHost) {}

  /** @throws BildadConfigError where it is not a job's: ask `getType()` before, in what serves routes as well */
  static create(host: ArgumentsHost): BildadExecutionContext {
    const type = host.getType<BildadContextType>();
    if (type !== JOB_CONTEXT_TYPE)
      throw new BildadConfigError(
        'context',
        `must be one whose getType() is '${JOB_CONTEXT_TYPE}'`,
        { got: type, where: 'BildadExecutionContext.create' },
      );
    return new BildadExecutionContext(host);
  }

  /** The job's context, validated, before any pipe. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- as in Nest's own
  getContext<T = unknown>(): T {
    return this.host.getArgByIndex<T>(0);
  }

  /** The run, as its handler is given it. */
  getJob(): JobExecution {
    return this.host.getArgByIndex<JobExecution>(1);
  }
}

/** What `@Inject(REQUEST)` gives in a job: the run that REQUEST-scoped providers are made for. */
export class JobRequest<C = unknown> {
  constructor(
    /** The job's context, validated. */
    readonly context: C,
    readonly job: JobExecution,
  ) {}
}

/**
 * A guard has refused a job: its `canActivate` was not true, or it threw a ForbiddenException, which is the `cause`. The
 * run fails as by any error, so the job is tried again while it has retries: what is refused now may be allowed later.
 */
export class JobForbiddenError extends ForbiddenException {
  readonly code: string = 'JOB_FORBIDDEN';

  constructor(refused: ForbiddenException) {
    super(refused.message, { cause: refused });
  }
}
