import { ForbiddenException } from '@nestjs/common';

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
