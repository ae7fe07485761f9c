import { Catch, HttpStatus, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import { BaseExceptionFilter } from '@nestjs/core';
import {
  BildadConfigError,
  BildadDatabaseError,
  BildadError,
  DuplicateJobError,
  InvalidJobContextError,
  JobNotAvailableError,
  JobNotFoundError,
  JobTemplateInactiveError,
  JobTemplateNotFoundError,
  RunNotActiveError,
} from 'nestjs-bildad';

const STATUS = new Map<unknown, HttpStatus>([
  [BildadConfigError, HttpStatus.BAD_REQUEST],
  [JobTemplateNotFoundError, HttpStatus.NOT_FOUND],
  [JobNotFoundError, HttpStatus.NOT_FOUND],
  [DuplicateJobError, HttpStatus.CONFLICT],
  [JobTemplateInactiveError, HttpStatus.CONFLICT],
  [JobNotAvailableError, HttpStatus.CONFLICT],
  [RunNotActiveError, HttpStatus.CONFLICT],
  [InvalidJobContextError, HttpStatus.UNPROCESSABLE_ENTITY],
  [BildadDatabaseError, HttpStatus.SERVICE_UNAVAILABLE],
]);

/** Bildad's errors as HTTP answers, with their stable `code`. What is not listed is our own fault: 500, logged. */
@Catch(BildadError)
export class BildadErrorsFilter extends BaseExceptionFilter implements ExceptionFilter {
  override catch(error: BildadError, host: ArgumentsHost): void {
    const statusCode = STATUS.get(error.constructor);
    if (statusCode === undefined) return super.catch(error, host);
    const { code, message } = error;
    const violations = error instanceof InvalidJobContextError ? error.violations : undefined;
    host
      .switchToHttp()
      .getResponse<Response>()
      .status(statusCode)
      .json({ statusCode, code, message, violations });
  }
}

/** As much of Express's response as is needed here. */
interface Response {
  status(code: number): Response;
  json(body: unknown): void;
}
