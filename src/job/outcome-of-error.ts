import { toMilliseconds } from './duration.js';
import type { Outcome } from './outcome.js';
import { JobCancelledError, NonRetryableError, SnoozeError } from './handler-signals.js';
import { attempt } from './storable-output.js';

/** How a run ends whose handler threw this. Never throws, whatever was thrown. */
export function outcomeOfThrown(error: unknown): Outcome {
  if (is(error, NonRetryableError, 'NON_RETRYABLE')) return { kind: 'failedForGood', error };
  if (is(error, SnoozeError, 'JOB_SNOOZED')) {
    const delayMs = attempt(() => toMilliseconds(error.delayMs, 'delayMs'));
    if (delayMs !== undefined) return { kind: 'snoozed', delayMs, ...whyOf(error) };
  }
  if (is(error, JobCancelledError, 'JOB_CANCELLED')) return { kind: 'cancelled', ...whyOf(error) };
  return { kind: 'failed', error };
}

const is = <T extends { code: string }>(
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
