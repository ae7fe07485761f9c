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
