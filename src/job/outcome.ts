import { toMilliseconds } from './duration.js';
import { JobCancelledError, NonRetryableError, SnoozeError } from './handler-signals.js';
import { attempt } from './storable-output.js';

/** How a run can end. The table in `verdict.ts` decides what happens to the run and its queue entry. */
export type Outcome =
  | { kind: 'completed'; output: unknown }
  | { kind: 'failed'; error: unknown }
  /** The handler threw a NonRetryableError. */
  | { kind: 'failedForGood'; error: unknown }
  /** The handler snoozed the job. */
  | { kind: 'snoozed'; delayMs: number; why?: string }
  | { kind: 'timedOut' }
  | { kind: 'killed' }
  | { kind: 'expired' }
  /** Its node was lost. `crashes`: crashes that count against the job, including this one. */
  | { kind: 'crashed'; crashes: number; maxCrashes: number }
  /** Its thread or process died. `crashes` as above. */
  | { kind: 'hostDied'; error: Error; crashes: number; maxCrashes: number }
  | { kind: 'stopped' }
  | { kind: 'invalidContext'; error: Error }
  | { kind: 'interrupted' }
  /** `why`: the reason of a handler that cancelled its job. */
  | { kind: 'cancelled'; why?: string }
  /** It did not start before its `startBefore`. */
  | { kind: 'missed' };

export type OutcomeKind = Outcome['kind'];

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
