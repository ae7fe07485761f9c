/**
 * How a run can end. Whatever ends a run goes through `life/finish` with one of these; what then
 * happens to the run and its queue entry is the table in `policy/verdict`.
 */
export type Outcome =
  | { kind: 'completed'; output: unknown }
  | { kind: 'failed'; error: unknown }
  /** The handler knows that trying again is of no use. */
  | { kind: 'failedForGood'; error: unknown }
  /** The handler put its job off. */
  | { kind: 'snoozed'; delayMs: number; why?: string }
  | { kind: 'timedOut' }
  | { kind: 'killed' }
  | { kind: 'expired' }
  /** Its node was lost. `crashes`: lost nodes that the job was charged with, this one included. */
  | { kind: 'crashed'; crashes: number; maxCrashes: number }
  /** The thread or process that ran it did. `crashes`: as above, this one included. */
  | { kind: 'hostDied'; error: Error; crashes: number; maxCrashes: number }
  | { kind: 'stopped' }
  | { kind: 'invalidContext'; error: Error }
  | { kind: 'interrupted' }
  /** `why` where the handler itself gave its job up. */
  | { kind: 'cancelled'; why?: string }
  /** It was claimed, and could not be started before its `startBefore`. */
  | { kind: 'missed' };

export type OutcomeKind = Outcome['kind'];
