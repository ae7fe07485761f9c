import { toMilliseconds } from './duration.js';
import type { Outcome } from './outcome.js';
import { JobCancelledError, NonRetryableError, SnoozeError } from './handler-signals.js';
import { attempt } from './storable-output.js';

/** The outcome of a run whose handler threw this value. Never throws. */
export function outcomeOfThrown(error: unknown): Outcome {
  if (isErrorOf(error, NonRetryableError, 'NON_RETRYABLE')) return { kind: 'failedForGood', error };
  if (isErrorOf(error, SnoozeError, 'JOB_SNOOZED')) {
    const delayMs = attempt(() => toMilliseconds(error.delayMs, 'delayMs'));
    if (delayMs !== undefined) return { kind: 'snoozed', delayMs, ...whyOf(error) };
  }
  if (isErrorOf(error, JobCancelledError, 'JOB_CANCELLED'))
    return { kind: 'cancelled', ...whyOf(error) };
  return { kind: 'failed', error };
}

const isErrorOf = <T extends { code: string }>(
  error: unknown,
  type: abstract new (...args: any[]) => T,
  code: string,
): error is T =>
  attempt(
    () =>
      error instanceof type ||
      (error instanceof Error && (error as { code?: unknown }).code === code),
  ) === true;

function whyOf(error: { why?: unknown }): { why?: string } {
  const why = attempt(() => error.why);
  return typeof why === 'string' && why !== '' ? { why } : {};
}
