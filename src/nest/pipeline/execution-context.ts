import type { ArgumentsHost, ContextType } from '@nestjs/common';
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
