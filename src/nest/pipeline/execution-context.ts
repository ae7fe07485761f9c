import { type ArgumentsHost, type ContextType, ForbiddenException } from '@nestjs/common';
import { BildadConfigError } from '../../job/errors.js';
import type { JobExecution } from '../../job/job-handler.js';

/** The value of `getType()` of an ExecutionContext: `'bildad'` for a job. */
export type BildadContextType = ContextType | 'bildad';

export const JOB_CONTEXT_TYPE = 'bildad' satisfies BildadContextType;

/** The execution context of a job, for guards, interceptors and exception filters. */
export class BildadExecutionContext {
  private constructor(private readonly host: ArgumentsHost) {}

  /**
   * @throws BildadConfigError when it is not a job's context: check `getType()` first in enhancers
   *   that serve routes, too
   */
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

  /** The execution that the handler receives. */
  getJob(): JobExecution {
    return this.host.getArgByIndex<JobExecution>(1);
  }
}

/** The object that `@Inject(REQUEST)` provides in a job. */
export class JobRequest<C = unknown> {
  constructor(
    /** The job's context, validated. */
    readonly context: C,
    readonly job: JobExecution,
  ) {}
}

/**
 * A guard refused a job: `canActivate` did not return true, or threw a ForbiddenException, which is
 * the `cause`. The run fails and the job is retried while it has retries.
 */
export class JobForbiddenError extends ForbiddenException {
  readonly code: string = 'JOB_FORBIDDEN';

  constructor(refused: ForbiddenException) {
    super(refused.message, { cause: refused });
  }
}
