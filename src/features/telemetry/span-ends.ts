import type * as Api from '@opentelemetry/api';
import type { Outcome } from '../../job/outcome.js';
import { errorType } from './error-type.js';
import { faultOf } from './fault.js';

/** @param messages whether what was thrown may be quoted */
export function endRun(api: typeof Api, span: Api.Span, outcome: Outcome, messages: boolean): void {
  const { kind } = outcome;
  span.setAttribute('bildad.outcome', kind);
  if (faultOf(kind)) {
    const thrown = 'error' in outcome;
    span.setAttribute('error.type', thrown ? errorType(outcome.error) : kind);
    if (thrown) failed(api, span, outcome.error, messages);
    else span.setStatus({ code: api.SpanStatusCode.ERROR, message: kind });
  }
  span.end();
}

export function failed(
  { SpanStatusCode }: typeof Api,
  span: Api.Span,
  error: unknown,
  messages: boolean,
): void {
  const name = errorType(error);
  const quoted = messages && error instanceof Error;
  span.recordException(quoted ? error : { name });
  span.setStatus({
    code: SpanStatusCode.ERROR,
    message: quoted ? error.message : name,
  });
}
